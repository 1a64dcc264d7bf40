"""Questions that a model answers in its own words."""

from dataclasses import dataclass

from graspl.data.rows import Message


@dataclass(frozen=True)
class Question:
    """One question; its answer is kept and judged later."""

    id: str  # Names the question in `generations.jsonl`; unique in a suite
    messages: list[Message]  # The prompt; its last turn is the user's
    origin: str  # Where it came from, for messages to the user
    group: str = ""  # A format, a domain, safe or unsafe: reported separately
