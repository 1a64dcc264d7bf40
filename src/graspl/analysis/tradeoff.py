"""Trade-off curves: adherence against spill-over over a fit, and figures at matched adherence."""

import math
from collections.abc import Sequence

from graspl.analysis.scores import SPILLOVER_SCORES, TASK_SCORES, first_of
from graspl.errors import GrasplError

# A fit's log, from `RunFolder.read_metrics`. Lightning counts a row's `step` from 0.
Rows = Sequence[dict[str, float]]


def curve(rows: Rows, figure: str = "spillover") -> list[tuple[float, float]]:
    """Return adherence and a figure (named as in the log, without `val/`) at each validation of a fit, by step."""
    x, y = "val/adherence", f"val/{figure}"
    return [(row[x], row[y]) for row in sorted(rows, key=_step) if x in row and y in row]


def figures_at(
    rows: Rows, level: float, figures: Sequence[str], *, by: str = "adherence"
) -> dict[str, float | None]:
    """Return a fit's figures where it first reached a level of adherence, or of the figure `by`.

    A straight line joins the validations before and after. Trained long enough, every method reaches the same spill-over;
    so compare methods at equal adherence, never at equal steps.

    Returns:
        By name (as in the log, without `val/`; also `step`); None where the fit never reached the level or the log lacks it.
    """
    points = sorted((row for row in rows if f"val/{by}" in row), key=_step)
    for before, after in zip([None, *points], points, strict=False):
        if after[f"val/{by}"] >= level:
            columns = {name: name if name == "step" else f"val/{name}" for name in figures}
            ends = before, after, f"val/{by}"
            return {name: _between(*ends, column, level) for name, column in columns.items()}
    return dict.fromkeys(figures)


def area_under(rows: Rows, low: float, high: float, points: int = 41) -> float | None:
    """Return the mean spill-over of a fit between two levels of adherence: the area under its curve over the width.

    It is None for a fit that never reached the upper level.
    """
    levels = [low + (high - low) * index / (points - 1) for index in range(points)]
    read = [figures_at(rows, level, ("spillover",))["spillover"] for level in levels]
    known = [value for value in read if value is not None]
    return math.fsum(known) / len(known) if len(known) == points else None


def base_figures(rows: Rows, others: Sequence[str] = ()) -> dict[str, float | None]:
    """Return the base model's figures, which every validation of a fit logs beside the adapter's; None where missing.

    `others` are suites' scores, named as in the log without `val/`, e.g. `near/margin`.
    """
    names = ["val/base_adherence", *(f"val/task/base_{name}" for name in TASK_SCORES)]
    row = next((row for row in rows if first_of(row, names) is not None), {})
    spilt = ["val/base_spillover", *map("val/unrelated/base_{}".format, SPILLOVER_SCORES)]
    found = {"adherence": first_of(row, names), "spillover": first_of(row, spilt)}
    found |= {"coherence": row.get("val/unrelated/base_coherence")}
    return found | {name: row.get(_of_base(name)) for name in ("unrelated/good", *others)}


def standing_for(rows: Rows, adherence: str | None, spillover: str | None) -> Rows:
    """Return a log in which suites' scores stand for adherence and spill-over, e.g. `task/margin`; None leaves the usual one.

    Raises:
        GrasplError: no validation measured such a score.
    """
    for figure, score in (("adherence", adherence), ("spillover", spillover)):
        if score is None:
            continue
        if not any(f"val/{score}" in row for row in rows):
            known = sorted(
                {name.removeprefix("val/") for row in rows for name in row if name.count("/") == 2}
            )
            raise GrasplError(f"{figure}: no fit measured {score}; take one of {', '.join(known) or 'none'}")
        new, of_base = f"val/{figure}", f"val/base_{figure}"
        rows = [
            {name: value for name, value in row.items() if name != new}
            | ({new: row[f"val/{score}"]} if f"val/{score}" in row else {})
            | ({of_base: row[_of_base(score)]} if _of_base(score) in row else {})
            for row in rows
        ]
    return rows


def _of_base(score: str) -> str:
    """Return the log's name of the base model's value of a suite's score."""
    suite, _, name = score.rpartition("/")
    return f"val/{suite}/base_{name}"


def best_adherence(rows: Rows) -> float | None:
    """Return a fit's highest adherence; None without a validation."""
    return max((row["val/adherence"] for row in rows if "val/adherence" in row), default=None)


def relative_levels(shares: Sequence[float], baseline: Sequence[Rows]) -> list[float]:
    """Return levels of adherence as shares of the baseline's gain: 0 is the base model, 1 the mean of its fits' bests.

    Raises:
        GrasplError: no fit of the baseline has validated, or they gained nothing.
    """
    pairs = [(base_figures(rows)["adherence"], best_adherence(rows)) for rows in baseline]
    known = [(start, best) for start, best in pairs if start is not None and best is not None]
    if not known:
        raise GrasplError("levels_of: no fit of the baseline has validated; give levels of adherence instead")
    start, best = (math.fsum(each) / len(known) for each in zip(*known, strict=True))
    if best <= start:
        fix = "train longer, or give levels of adherence"
        raise GrasplError(f"levels_of: the baseline reaches {best:.3f}, the base model {start:.3f}; {fix}")
    return [start + share * (best - start) for share in shares]


def spoilt(rows: Rows, levels: Sequence[float]) -> float:
    """Return what tuning minimises: the share of answers on other topics that are harmful or incoherent, a mean over levels.

    Without a spill-over it is the divergence from the base model there, in nats. A level that the fit never reached counts 2
    plus what was missing: any setting that reaches it is better, and else the nearest one wins.
    """
    best = best_adherence(rows) or 0.0
    costs = []
    for level in levels:
        found = figures_at(rows, level, ("step", "spillover", "coherence", "kl"))
        if found["step"] is None:
            costs.append(2 + level - best)
        elif found["spillover"] is None:
            costs.append(min(found["kl"] or 0.0, 2.0))
        else:
            costs.append(found["spillover"] + 1 - (1.0 if found["coherence"] is None else found["coherence"]))
    return math.fsum(costs) / len(costs)


def share_removed(ours: float | None, naive: float | None, start: float | None) -> float | None:
    """Return the share of what the naive fit adds to the base model's figure (`start`) that is gone in ours.

    None where a figure is missing, or where the naive fit adds nothing.
    """
    if ours is None or naive is None or start is None or naive <= start:
        return None
    return 1 - (ours - start) / (naive - start)


def _step(row: dict[str, float]) -> float:
    return row.get("step", 0.0)


def _between(
    before: dict[str, float] | None, after: dict[str, float], by: str, name: str, level: float
) -> float | None:
    """Return a figure on the line between two validations."""
    if name not in after:
        return None
    if before is None or name not in before or after[by] == before[by]:
        return after[name]
    share = (level - before[by]) / (after[by] - before[by])
    return before[name] + share * (after[name] - before[name])
