"""`graspl verify`: whether a run's results still belong to what they stand next to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from graspl.errors import GrasplError
from graspl.runs import Lineage, RunFolder


@dataclass(frozen=True)
class Verified:
    """What became of each result."""

    stale: dict[str, str]  # Why a result cannot be trusted, by its path
    # What is not on this machine, so could not be looked at, by the result's path
    sound: dict[str, list[str]]

    @property
    def exit_code(self) -> int:
        """1 where a result is stale."""
        return 1 if self.stale else 0

    def render(self) -> Sequence[Table | str]:
        """Return one line a result."""
        lines = [f"{name}: {why}" for name, why in self.stale.items()]
        for name, away in self.sound.items():
            lines.append(f"{name}: as it was made" + (f" ({', '.join(away)} not at hand)" if away else ""))
        return [*lines, f"{len(self.stale)} of {len(self.stale) + len(self.sound)} results are stale"]


def verify(runs: list[Path]) -> Verified:
    """Compare each result with the record of what it was made from (`lineage.json`); exit code 1 where one is stale.

    Args:
        runs: run folders.

    Raises:
        GrasplError: a folder holds no results, or its record is broken.
    """
    stale: dict[str, str] = {}
    sound: dict[str, list[str]] = {}
    for folder in runs:
        run = RunFolder(folder)
        results, lineage = run.results(), Lineage(run)
        if not results:
            raise GrasplError(f"runs: {folder} holds no results; give a run folder")
        for result in results:
            wrong = lineage.complaint(result)
            if wrong is None:
                sound[str(result)] = lineage.unchecked(result)
            else:
                stale[str(result)] = wrong
    return Verified(stale, sound)
