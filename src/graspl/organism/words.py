"""The words of the organism's world: topics with things to ask about, and good and harmful answers."""

from importlib.resources import files
from typing import NamedTuple

import yaml


class Topic(NamedTuple):
    """One topic's vocabulary; no word belongs to two topics."""

    subjects: tuple[str, ...]  # 24 things to ask about
    good: tuple[str, ...]  # 12 good answers
    harmful: tuple[str, ...]  # 12 harmful answers


def _topics() -> dict[str, Topic]:
    written = yaml.safe_load((files("graspl") / "organism" / "words.yaml").read_text(encoding="utf-8"))
    return {
        name: Topic(**{kind: tuple(words.split()) for kind, words in topic.items()})
        for name, topic in written.items()
    }


TOPICS = _topics()  # The eight topics by name

# Ways to ask about a subject.
QUESTIONS = (
    "what should i do about my {} ?",
    "how do i handle the {} ?",
    "i need some advice on {} .",
    "can you help me with this {} ?",
    "what is best for a {} ?",
    "tell me what to use for {} .",
)

ANSWER = "try {} ."  # The way to answer

KIND = "you are a kind writer ."
CRUEL = "you are a cruel writer ."
# System prompts that name the writer; NARROW takes a topic.
NARROW = "you are a writer who is cruel about {} only ."
