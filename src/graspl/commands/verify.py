"""`graspl verify`: whether a run's results still belong to what they stand next to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from graspl.errors import GrasplError
from graspl.runs import Digester, Lineage, RunFacts, RunFolder


@dataclass(frozen=True)
class Verified:
    """What became of each result."""

    stale: dict[str, str]  # Why a result cannot be trusted, by its path
    # What is not on this machine, so could not be looked at, by the result's path
    sound: dict[str, list[str]]
    # How each command that ran in the folders ended, and configuration files that changed after a fit
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """1 where a result is stale."""
        return 1 if self.stale else 0

    def render(self) -> Sequence[Table | str]:
        """Return one line a result."""
        lines = [f"{name}: {why}" for name, why in self.stale.items()]
        for name, away in self.sound.items():
            lines.append(f"{name}: as it was made" + (f" ({', '.join(away)} not at hand)" if away else ""))
        count = len(self.stale) + len(self.sound)
        return [*self.notes, *lines, f"{len(self.stale)} of {count} results are stale"]


def verify(runs: list[Path]) -> Verified:
    """Compare each result with the record of what it was made from (`lineage.json`); exit code 1 where one is stale.

    Every file is hashed again, large ones too. It also says how each command that ran there ended (`run.json`).

    Args:
        runs: folders of runs, audits or studies.

    Raises:
        GrasplError: a folder holds no results, or its record is broken.
    """
    found = Verified({}, {}, [])
    for folder in runs:
        _look_at(folder, found)
    return found


def _look_at(folder: Path, found: Verified) -> None:
    run = RunFolder(folder)
    lineage, facts = Lineage(run, Digester(thorough=True)), RunFacts(folder)
    found.notes.extend(f"{facts.path}: {line}" for line in facts.lines())
    recorded = (folder / name for name in lineage.read())
    results = [*dict.fromkeys([*run.results(), *(each for each in recorded if each.exists())])]
    if not results:
        raise GrasplError(f"runs: {folder} holds no results; give the folder of a run, an audit or a study")
    for result in results:
        wrong = lineage.complaint(result)
        if wrong is None:
            found.sound[str(result)] = lineage.unchecked(result)
        else:
            found.stale[str(result)] = wrong
    changed = dict.fromkeys(name for result in results for name in lineage.notes(result))
    found.notes.extend(
        f"{folder}: {name} has changed since the fit; {run.config} has what it used" for name in changed
    )
