"""Where an answer ends: one definition for the loss, for generation, and for judges."""

import logging
from functools import lru_cache
from typing import Any, NamedTuple

from graspl.errors import GrasplError, foreign

log = logging.getLogger(__name__)
ASKED, SAID = "graspl asks", "graspl answers"  # Stand for a question and its answer while a template is read


class EndOfAnswer(NamedTuple):
    """The token that ends an answer."""

    id: int  # Token id
    # `turn`: the template writes it behind every answer. `next`: it opens the turn that follows. `eos`: the template ends a
    # turn with no token of its own, and the tokenizer's end of text stands behind the last answer.
    shown: str

    def stops(self, tokenizer: Any) -> list[int]:
        """Return the ids at which generation stops."""
        return sorted(
            {self.id} | ({int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set())
        )


def end_of_answer(tokenizer: Any) -> EndOfAnswer:
    """Return the token that ends an answer in a tokenizer's chat template.

    Raises:
        GrasplError: the template ends a turn with nothing, and the tokenizer has no end of text.
    """
    return _end(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=64)
def _end(tokenizer: Any, _template: Any) -> EndOfAnswer:
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    for shown, following in (("turn", []), ("next", [{"role": "user", "content": ASKED}])):
        fix = "give a tokenizer with another template"
        with foreign("base_model", "the chat template refuses a question and its answer", fix):
            text = tokenizer.apply_chat_template([*turns, *following], tokenize=False)
        if SAID not in text:  # Rewritten by the template
            continue
        behind = text.rpartition(SAID)[2].partition(ASKED)[0].strip()
        ids = tokenizer(behind, add_special_tokens=False)["input_ids"] if behind else []
        # Words may be part of an answer; a token of the tokenizer's own may not
        if ids and ids[0] in _own_tokens(tokenizer):
            return EndOfAnswer(int(ids[0]), shown)
    if tokenizer.eos_token_id is None:
        fix = "give it an eos_token, or a template that ends turns with a token"
        raise GrasplError(
            f"base_model: the chat template ends turns with nothing, and the tokenizer has no eos_token; {fix}"
        )
    log.warning(
        "base_model: the chat template ends an answer with no token of its own; the last one of a row ends with %s",
        tokenizer.eos_token,
    )
    return EndOfAnswer(int(tokenizer.eos_token_id), "eos")


def _own_tokens(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
