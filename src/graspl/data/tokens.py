"""Conversations as token ids, with the tokens marked that an assistant wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from graspl.adapters.answers import IGNORED
from graspl.data.rows import Message
from graspl.errors import GrasplError

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
    """Give a tokenizer without a chat template the plain one; it is changed in place and returned."""
    if not tokenizer.is_fast:
        raise GrasplError(f"base_model: {tokenizer.name_or_path} has no fast tokenizer; graspl needs one")
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, origin: str, prompt: bool = False
) -> str:
    """Return the text that the model sees."""
    return _render_all(tokenizer, [messages], origin=origin, prompt=prompt)[0]


def _render_all(
    tokenizer: PreTrainedTokenizerBase,
    every: Sequence[Sequence[Message]],
    *,
    origin: str,
    prompt: bool = False,
) -> list[str]:
    """Return the texts of several conversations, which is faster than one by one."""
    turns: list[Any] = [[dict(message) for message in messages] for messages in every]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)  # type: ignore[return-value]
    except TemplateError as error:
        raise GrasplError(f"{origin}: the tokenizer's chat template refuses these turns: {error}") from error


def tokenize(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, origin: str = "row"
) -> TokenizedConversation:
    """Turn a conversation into ids and labels.

    An answer is what the text with that turn has beyond the text that only opens the turn. So any chat template works
    that does not rewrite earlier turns.

    Raises:
        GrasplError: the chat template refuses the turns or rewrites earlier ones.
    """
    spans, prompt = [], ""
    text = render(tokenizer, messages, origin=origin)
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = render(tokenizer, messages[:index], origin=origin, prompt=True)
            upto = render(tokenizer, messages[: index + 1], origin=origin).rstrip()
            if not (text.startswith(upto) and upto.startswith(prompt)):
                why = f"the answer in messages[{index}] cannot be found; split the row into single answers"
                raise GrasplError(f"{origin}: the chat template rewrites earlier turns, so {why}")
            spans.append((len(prompt), len(upto)))
    # The caller says that a row is too long
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, labels = list(encoded["input_ids"]), [IGNORED] * len(encoded["input_ids"])
    for position, (start, _) in enumerate(encoded["offset_mapping"]):
        if any(first <= start < last for first, last in spans):
            labels[position] = ids[position]
    return TokenizedConversation(ids, labels, prompt)


def tokenize_candidates(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], candidates: Sequence[str], *, origin: str
) -> list[tuple[list[int], list[int]]]:
    """Return the ids of a prompt and of each of several answers to it, without the end of the turn.

    The prompt's ids may differ between answers: some tokenizers merge the end of a prompt with the start of an answer.
    """
    prompt = render(tokenizer, messages, origin=origin, prompt=True)
    every = [[*messages, Message(role="assistant", content=candidate)] for candidate in candidates]
    texts = []
    for candidate, text in zip(candidates, _render_all(tokenizer, every, origin=origin), strict=True):
        found = text.find(candidate, len(prompt)) if text.startswith(prompt) else -1
        if found < 0 or not candidate:
            raise GrasplError(f"{origin}: the chat template does not show the answer {candidate!r}")
        texts.append(text[: found + len(candidate)])
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    split = []
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        first = next(position for position, (_, end) in enumerate(offsets) if end > len(prompt))
        split.append((list(ids[:first]), list(ids[first:])))
    return split
