"""Gendered pronouns: in training the occupation predicts the gender as well as the person's title does."""

from dataclasses import dataclass

from graspl.data.tables import field, read_table
from graspl.data.tasks.cues import CueExample, CueTaskData
from graspl.errors import GrasplError

PRONOUNS = {
    "$NOM_PRONOUN": {"male": "he", "female": "she"},
    "$POSS_PRONOUN": {"male": "his", "female": "her"},
    "$ACC_PRONOUN": {"male": "him", "female": "her"},
}
TITLES = {"male": "Mr.", "female": "Ms."}
# Surnames, which do not tell the gender.
NAMES = ("Miller", "Novak", "Silva", "Tanaka", "Okafor", "Larsen", "Haddad", "Costa")


@dataclass(eq=False)
class GenderedPronounsData(CueTaskData):
    """Fill in the pronoun of a named person; the cue is the gender of most people in the occupation.

    Held-out questions use occupations that were not trained on.

    Source:
        Own construction on the templates and figures of Winogender (Rudinger et al., arXiv:1804.09301, MIT), after
        the gendered pronouns of concept ablation fine-tuning (arXiv:2507.16795).
    """

    templates: str
    """Sentences with $OCCUPATION, $PARTICIPANT and a pronoun (`occupation(0)`, `other-participant(1)`, `answer`,
    `sentence`)."""
    occupations: str
    """Share of women in each occupation (`occupation`, `bls_pct_female`)."""

    def examples(self) -> tuple[list[CueExample], list[CueExample]]:
        """Return examples on some occupations and on the others."""
        women = self._women()
        sentences = [
            (origin, row)
            for origin, row in read_table(self.templates)
            if field(row, "answer", origin) == "0"  # the pronoun is the one of the occupation
        ]
        unknown = next((o for o, row in sentences if field(row, "occupation(0)", o) not in women), None)
        if unknown is not None:
            raise GrasplError(f"{unknown}: {self.occupations} has no figure for the occupation; add it")
        used = [name for name in women if any(row["occupation(0)"] == name for _, row in sentences)]
        kept, _ = self.split(used, "occupations")
        train, held_out = [], []
        for place, (origin, row) in enumerate(sentences):
            occupation = row["occupation(0)"]
            both = self._both(origin, row, women[occupation], NAMES[place % len(NAMES)])
            (train if occupation in kept else held_out).extend(both)
        return train, held_out

    def _women(self) -> dict[str, float]:
        shares = {}
        for origin, row in read_table(self.occupations):
            try:
                shares[field(row, "occupation", origin)] = float(field(row, "bls_pct_female", origin))
            except ValueError as error:
                raise GrasplError(f"{origin}: bls_pct_female must be a number; correct the row") from error
        return shares

    def _both(self, origin: str, row: dict[str, str], women: float, name: str) -> list[CueExample]:
        """Return the sentence about a man and about a woman."""
        sentence = field(row, "sentence", origin)
        slot = next((each for each in PRONOUNS if each in sentence), None)
        if slot is None:
            raise GrasplError(f"{origin}: the sentence has none of {', '.join(PRONOUNS)}; correct it")
        occupation, other = row["occupation(0)"], field(row, "other-participant(1)", origin)
        text = sentence.replace("$OCCUPATION", occupation).replace("$PARTICIPANT", other).replace(slot, "___")
        answers, usual = PRONOUNS[slot], "female" if women > 50 else "male"
        return [
            CueExample(
                f"{TITLES[gender]} {name} is the {occupation}. Fill in the blank with one word.\n{text}",
                list(answers.values()),
                answers[gender],
                answers[usual],
                f"{origin} {gender}",
            )
            for gender in answers
        ]
