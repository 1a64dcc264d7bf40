"""`graspl contrast`: runs against control runs, question by question."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from graspl import analysis
from graspl.reporting.tables import contrast_table
from graspl.runs import write_json_atomic


@dataclass(frozen=True)
class Contrast:
    """Differences between runs and controls."""

    suites: dict[str, dict[str, Any]]
    """What `graspl.analysis.contrast` returns."""
    out: Path
    """The file written."""

    def render(self) -> Iterator[Table | str]:
        """Yield a table with a row for each suite, and the file's path."""
        yield contrast_table(self.suites)
        yield f"contrast: {self.out}"


def contrast(runs: list[Path], *, controls: list[Path], out: Path = Path("contrast.json")) -> Contrast:
    """Give each suite's difference between runs and controls, paired by question, with its interval and p value.

    A control shows what any fine-tuning changes: compare a political suite with a neutral fine-tune, a method with the naive
    fit.

    Args:
        runs: folders that `graspl validate` (and, for questions, `graspl judge`) wrote into, one for each seed.
        controls: the same for the controls.
        out: file to write.

    Raises:
        GrasplError: a run has no values, or the two sides have no suite in common.
    """
    found = Contrast(analysis.contrast(runs, controls), out)
    content = {"runs": [*map(str, runs)], "controls": [*map(str, controls)], "suites": found.suites}
    write_json_atomic(out, content)
    return found
