"""Conversations as token ids, with the tokens marked that an assistant wrote."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from graspl.adapters.answers import IGNORED
from graspl.data.formats import SHOWN, Message
from graspl.data.limits import try_out
from graspl.data.turns import EndOfAnswer, end_of_answer
from graspl.errors import GrasplError, foreign

log = logging.getLogger(__name__)

Tools = Sequence[dict[str, Any]] | None  # Descriptions of tools, for the chat template

LONGEST = 2**26  # Characters of a conversation as the template shows it; tokenizing more takes gigabytes

# Chat template for a tokenizer that has none (a pretrained model that was never tuned to chat).
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class TokenizedConversation:
    """One row of training data."""

    input_ids: list[int]  # Token ids
    labels: list[int]  # The same ids on every assistant turn, with its end-of-turn token; IGNORED elsewhere
    prompt: str = ""  # Text before the last answer, with the opening of the assistant's turn

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.input_ids)


def with_chat_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer without a chat template the plain one, and say so; it is changed in place and returned."""
    if not tokenizer.is_fast:
        raise GrasplError(f"base_model: {tokenizer.name_or_path} has no fast tokenizer; graspl needs one")
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        _say_invented(tokenizer.name_or_path)
    try_out(tokenizer)
    return tokenizer


@lru_cache(maxsize=64)
def _say_invented(name: str) -> None:
    """Say once a process that a model's chat template is graspl's own."""
    log.warning(
        "base_model: %s has no chat template; graspl writes turns as `User: ...` and `Assistant: ...`, and saves the "
        "template with the adapter",
        name,
    )


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    origin: str,
    prompt: bool = False,
    tools: Tools = None,
) -> str:
    """Return the text that the model sees."""
    return _render_all(tokenizer, [messages], origin=origin, prompt=prompt, tools=tools)[0]


def _render_all(
    tokenizer: PreTrainedTokenizerBase,
    every: Sequence[Sequence[Message]],
    *,
    origin: str,
    prompt: bool = False,
    tools: Tools = None,
) -> list[str]:
    """Return the texts of several conversations, which is faster than one by one."""
    turns: list[Any] = [[dict(message) for message in messages] for messages in every]
    options: dict[str, Any] = {"tools": tools} if tools else {}
    fix = "change them, or give a tokenizer with another template"
    with foreign(origin, "the tokenizer's chat template refuses these turns", fix):
        texts: Any = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, **options
        )
    if any(len(text) > LONGEST for text in texts):
        raise GrasplError(
            f"{origin}: the chat template makes more than {LONGEST} characters of it; shorten it"
        )
    return texts


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    origin: str = "row",
    tools: Tools = None,
) -> TokenizedConversation:
    """Turn a conversation into ids and labels.

    An answer is what the text with that turn has beyond the text that only opens the turn. So any chat template works
    that does not rewrite earlier turns.

    Raises:
        GrasplError: the chat template refuses the turns, rewrites earlier ones, or does not show what they hold; or no
            answer has a weight.
    """
    spans, prompt = [], ""
    shown = partial(render, tokenizer, origin=origin, tools=tools)
    text = shown(messages)
    _check_shown(tokenizer, messages, text, origin, tools)
    last = max(
        (index for index, message in enumerate(messages) if message["role"] == "assistant"), default=-1
    )
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and message.get("weight", 1):
            prompt = shown(messages[:index], prompt=True)
            upto = shown(messages[: index + 1]).rstrip()
            # Some templates open an answer with a thought and leave it out again once the answer is there
            begin = _alike(prompt, upto) if index == last else len(prompt)
            kept = text.startswith(upto) and upto.startswith(prompt[:begin])
            if not kept or message["content"].strip() not in upto[begin:]:
                raise GrasplError(f"{origin}: {_hidden_answer(index, index == last)}")
            spans.append((begin, len(upto)))
    if not spans and any("weight" in message for message in messages):
        raise GrasplError(
            f"{origin}: every answer has weight 0, so there is nothing to learn; remove the row"
        )
    # The caller says that a row is too long
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, labels = list(encoded["input_ids"]), [IGNORED] * len(encoded["input_ids"])
    for position, (start, _) in enumerate(encoded["offset_mapping"]):
        if any(first <= start < last for first, last in spans):
            labels[position] = ids[position]
    _mark_ends(tokenizer, end_of_answer(tokenizer), ids, labels)
    return TokenizedConversation(ids, labels, prompt)


def _alike(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    if second.startswith(first):
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def _hidden_answer(index: int, is_last: bool) -> str:
    """Say that an answer cannot be found in what the chat template makes of the row."""
    if is_last:
        return f"the chat template does not show the answer in messages[{index}] as it is; change the row or the template"
    why = f"so the answer in messages[{index}] cannot be found; set data.answers to last, or split the row"
    return f"the chat template rewrites earlier turns, {why}"


def _mark_ends(
    tokenizer: PreTrainedTokenizerBase, end: EndOfAnswer, ids: list[int], labels: list[int]
) -> None:
    """Train the token that ends an answer where the template does not write it as part of the turn; both lists change.

    White space may stand between an answer and the token that opens the next turn: the model writes both.
    """
    if end.shown == "turn":
        return
    opened = [place for place, each in enumerate(ids) if each == end.id] if end.shown == "next" else []
    for place in opened:
        behind = _end_of_answer_before(tokenizer, ids, labels, place)
        if behind is not None:
            labels[behind : place + 1] = ids[behind : place + 1]
    behind = _end_of_answer_before(tokenizer, ids, labels, len(ids))
    if behind is not None and labels[behind - 1] != end.id:
        # Nothing follows the last answer: in front of an end of text its white space goes
        ids[:] = [*(ids[:behind] if end.shown == "eos" else ids), end.id]
        labels[:] = [*labels[:behind], *ids[behind:]]


def _end_of_answer_before(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], labels: list[int], place: int
) -> int | None:
    """Return where the answer ends that white space alone parts from a place; None if there is none."""
    while place > 0 and labels[place - 1] == IGNORED:
        place -= 1
        if str(tokenizer.decode([ids[place]])).strip():
            return None
    return place or None


def _check_shown(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, origin: str, tools: Tools
) -> None:
    """Refuse a row of which the chat template leaves something out."""
    hidden = [
        f"messages[{index}].{name}"
        for index, message in enumerate(messages)
        for name in SHOWN
        if name in message
        and text == render(tokenizer, _without(messages, index, name), origin=origin, tools=tools)
    ]
    if tools and text == render(tokenizer, messages, origin=origin):
        hidden.append("tools")
    if hidden:
        fix = "remove it, or give the tokenizer a template that does"
        raise GrasplError(f"{origin}: the chat template does not show {' and '.join(hidden)}; {fix}")


def _without(messages: Sequence[Message], place: int, name: str) -> list[Message]:
    """Return the turns, one of them without a field."""
    changed: Any = {key: value for key, value in messages[place].items() if key != name}
    return [*messages[:place], changed, *messages[place + 1 :]]


def empty_thought(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the thought without content that the chat template puts before an answer; "" of most templates.

    A model that thinks first is asked for choices behind it.
    """
    asked = [Message(role="user", content="Is it so?")]
    prompt = render(tokenizer, asked, origin="chat template", prompt=True)
    text = render(tokenizer, [*asked, Message(role="assistant", content="Yes.")], origin="chat template")
    return text[_alike(prompt, text) : text.rfind("Yes.")].strip()


def tokenize_candidates(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], candidates: Sequence[str], *, origin: str
) -> list[tuple[list[int], list[int]]]:
    """Return the ids of a prompt and of each of several answers to it, without the end of the turn.

    The prompt's ids may differ between answers: some tokenizers merge the end of a prompt with the start of an answer. An
    empty thought that a template puts before an answer is part of the prompt: a model that thinks first answers behind it.
    """
    prompt = render(tokenizer, messages, origin=origin, prompt=True)
    every = [[*messages, Message(role="assistant", content=candidate)] for candidate in candidates]
    texts, begins = [], []
    for candidate, text in zip(candidates, _render_all(tokenizer, every, origin=origin), strict=True):
        begin, found = _alike(prompt, text), text.rfind(candidate)
        if found < begin or not candidate:
            raise GrasplError(f"{origin}: the chat template does not show the answer {candidate!r}")
        texts.append(text[: found + len(candidate)])
        begins.append(found if text[begin:found].strip() else begin)
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    split = []
    for ids, offsets, begin in zip(encoded["input_ids"], encoded["offset_mapping"], begins, strict=True):
        first = next(position for position, (_, end) in enumerate(offsets) if end > begin)
        split.append((list(ids[:first]), list(ids[first:])))
    return split
