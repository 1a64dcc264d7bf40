"""Questions that a model answers in its own words."""

from dataclasses import dataclass

from graspl.data.rows import Message


@dataclass(frozen=True)
class Question:
    """One question; the answer is written, kept and judged later."""

    id: str
    """Names the question in `generations.jsonl`; of one suite, each its own."""
    messages: list[Message]
    """The prompt; its last turn is the user's."""
    origin: str
    """Where it came from, for messages to the user."""
    group: str = ""
    """What is reported apart: a format, a domain, safe or unsafe."""
