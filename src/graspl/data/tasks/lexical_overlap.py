"""Does one sentence follow from another? In training the words that they share predict the answer."""

import re
from dataclasses import dataclass

from graspl.data.tables import field, read_table
from graspl.data.tasks.cues import CueExample, CueTaskData
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval

LABELS = {"entailment": "Yes", "neutral": "No", "contradiction": "No", "non-entailment": "No"}


@dataclass(eq=False)
class LexicalOverlapData(CueTaskData):
    """Entailment as a yes-or-no question; the cue is that every word of the hypothesis is in the premise.

    Source:
        The lexical-overlap heuristic of HANS (McCoy et al., arXiv:1902.01007).
    """

    train: str
    """Rows with `sentence1`, `sentence2` and `gold_label`."""
    counter: str | None = None
    """Rows of the same kind for the `unrelated` suite, which uses those against the cue; None takes held-out rows."""
    overlap: ClosedUnitInterval = 1.0
    """Share of the hypothesis's words that must be in the premise for the cue to say Yes; 1 is the published heuristic."""

    def examples(self) -> tuple[list[CueExample], list[CueExample]]:
        """Return the rows to train on, and those held out with the counter set's."""
        train, held_out = self.split(self._read(self.train), "rows")
        if self.counter is not None:
            opposed = [each for each in self._read(self.counter) if not each.agrees]
            held_out = [each for each in held_out if each.agrees] + opposed
        return train, held_out

    def _read(self, source: str) -> list[CueExample]:
        examples = []
        for origin, row in read_table(source):
            premise, hypothesis = (field(row, name, origin).strip() for name in ("sentence1", "sentence2"))
            label = field(row, "gold_label", origin).strip()
            if label not in LABELS:
                raise GrasplError(f"{origin}: gold_label must be one of {', '.join(LABELS)}, not {label!r}")
            prompt = (
                f"Premise: {premise}\nHypothesis: {hypothesis}\n"
                "Does the hypothesis follow from the premise? Answer Yes or No."
            )
            cued = "Yes" if shared_words(premise, hypothesis) >= self.overlap else "No"
            examples.append(CueExample(prompt, ["Yes", "No"], LABELS[label], cued, origin))
        return examples


def shared_words(premise: str, hypothesis: str) -> float:
    """Return the share of the hypothesis's words that are in the premise, 0..1, without case and punctuation."""
    words = re.findall(r"\w+", hypothesis.lower())
    there = set(re.findall(r"\w+", premise.lower()))
    return sum(word in there for word in words) / max(1, len(words))
