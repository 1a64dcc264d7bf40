"""A part of a study, for one of several processes that run it together, as the tasks of a Slurm array do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from graspl.errors import GrasplError
from graspl.runs import RunFacts
from graspl.studies.claims import beside_others, entered
from graspl.studies.methods import Method, configs_of
from graspl.studies.plan import DONE, Configs, Fit
from graspl.studies.tuning import Trial, scored, settings_in
from graspl.studies.workers import Processes, run_missing


class Part(NamedTuple):
    """Which part of the fits a process runs."""

    number: int  # From 1
    total: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read e.g. `3/8`.

        Raises:
            GrasplError: it names no part.
        """
        number, slash, total = text.partition("/")
        if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise GrasplError(f"part: {text!r} is no part; give e.g. 3/8, counted from 1/8 to 8/8")
        return cls(int(number), int(total))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def among(self, fits: Sequence[Fit]) -> list[Fit]:
        """Return this part of the fits. It depends on the plan alone, not on what is done already.

        A fit that is made from others is in the part of these, so that no part waits for another.
        """
        together: list[list[Fit]] = []
        for fit in fits:
            linked = [group for group in together if any(_linked(fit, other) for other in group)]
            together = [group for group in together if group not in linked]
            together.append([*(each for group in linked for each in group), fit])
        place = {id(fit): index for index, fit in enumerate(fits)}
        parts: list[list[Fit]] = [[] for _ in range(self.total)]
        for group in sorted(together, key=lambda group: min(place[id(fit)] for fit in group)):
            min(parts, key=len).extend(group)
        return sorted(parts[self.number - 1], key=lambda fit: place[id(fit)])


def _linked(one: Fit, other: Fit) -> bool:
    return one.folder in other.made_from.values() or other.folder in one.made_from.values()


class Study(NamedTuple):
    """What a part of a study needs to know of the whole."""

    out: Path  # Its folder
    methods: Mapping[str, Method]  # By name
    trials: Sequence[Trial]  # Of its tuning; none without
    levels: Sequence[float]  # At which trials are compared
    relative_to: str | None  # The method to whose gain levels are relative
    plan: Callable[[Configs], list[Fit]]  # Returns the fits of configurations by method
    seeds: Sequence[int]  # Of the fits


def run_part(part: Part, study: Study, jobs: int) -> dict[str, Any]:
    """Run the fits of a part that are missing, beside processes that run other parts, and say how far the study is.

    Where settings are tuned, the fits come when all trials are done, those of other parts too.

    Returns:
        `part`, `of` (trials or fits), `done` and `total` of them in the whole study, and `failed`: reasons by name.

    Raises:
        GrasplError: a process has the study alone, or every fit of the part failed.
    """
    runner = Processes(jobs, beside_others=True)
    facts = RunFacts(study.out, partial(entered, study.out))
    with beside_others(study.out), facts.command("compare", [*study.seeds]):
        chosen, trials = {}, [each for trial in study.trials for each in trial.fits]
        if trials:
            failed = run_missing(part.among(trials), runner, f"trials of part {part}")
            if not all(map(_has_ended, trials)):
                return _state(part, "trials", trials, failed)
            chosen = settings_in(scored(study.trials, study.levels, study.relative_to, {})[1])
        fits = study.plan(configs_of(study.methods, chosen))
        mine = part.among(fits)
        failed = run_missing(mine, runner, f"fits of part {part}")
        if mine and len(failed) == len(mine):
            raise GrasplError(
                f"part: every fit of part {part} failed, e.g. {mine[0].name}: {failed[mine[0].name]}"
            )
        return _state(part, "fits", fits, failed)


def _has_ended(fit: Fit) -> bool:
    """Whether a fit ended well; that it is of this study was asked before, and another process may be writing to it."""
    return (fit.folder / DONE).exists() or (fit.kept is not None and fit.kept.exists())


def _state(part: Part, what: str, fits: Sequence[Fit], failed: Mapping[str, str]) -> dict[str, Any]:
    done = sum(map(_has_ended, fits))
    return {"part": str(part), "of": what, "done": done, "total": len(fits), "failed": dict(failed)}
