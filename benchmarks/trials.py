"""Was what trials foresaw of null spaces right? `python benchmarks/trials.py TASK=RUN...`.

RUN is the folder of a fit that tried its null space first (`NullSpaceStart(trial=10)`), one step long or longer, or the
record of such a fit; its figures of the null space hold what the trial showed. TASK is a folder with records of a naive fit
and of one with that null space on the same task, under results/ (such as `foreseen/animals_44`, or
`toy_ranks/embedded/frozen_8` for one of several), or one of the real tasks, whose figures are in
results/real_TASK_by_margin.json. TASK:SEED names one seed of several; of a real task it is read from the records in
results/real. Writes results/trials.json, or --out: a row a task, with what the response alone would have said
(`graspl.starts.response`), and what the trial says where most is kept, or on the user's text where there is some.

A null space holds where it removes at least half of the naive fit's excess at the highest level of adherence that both reach,
on far questions in a real task.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import correlation
from typing import Any

from tasks import LEVELS, RESULTS, record, this_machine

from graspl.analysis.fits import FitLog, at_level, kept_log
from graspl.analysis.tradeoff import base_figures, best_adherence, relative_levels, standing_for
from graspl.runs import read_json, write_json_atomic
from graspl.starts.response import FAILS
from graspl.starts.trial import HOLDS, Trial

sys.path.append(str(Path(__file__).parent / "real"))

from predicted import HALF, removed

# Tasks of which no trial had been seen when the measure was made as it is (docs/decisions/0013), those of two worlds too
TESTED_ON = "capitals", "bullets", "lowercase", "topic", "voiced_money"
NEW_WORLDS = "_41", "_43", "_45", "_46"


def removed_in_records(task: str) -> tuple[str, int]:
    """Return the highest level that the naive fit and the null space reach, and what is removed there, in percent."""
    return _removed(task, *_records(task), list(map(float, LEVELS)))


def highest(task: str) -> str:
    """Return the highest adherence of the null space and of the naive fit on a toy task."""
    if "/" not in task:
        return "-"
    naive, ours = (best_adherence(log.rows) or 0.0 for log in _records(task))
    return f"{ours:.2f}, naive {naive:.2f}"


def _records(task: str) -> tuple[FitLog, FitLog]:
    """Return what the naive fit and the null space logged."""
    path, _, seed = task.partition(":")
    folder, name = RESULTS / path, "null_space_frozen"
    if not folder.is_dir():
        folder, name = folder.parent, folder.name
    seed = seed or min(each.stem.rpartition("_")[2] for each in folder.glob("naive_*.json"))
    return kept_log(folder / f"naive_{seed}.json"), kept_log(folder / f"{name}_{seed}.json")


def removed_with_seed(task: str) -> tuple[str, int]:
    """Return the same of far margins of a real task with one seed; levels are shares of the naive fit's gain."""
    name, _, seed = task.partition(":")
    logs = [kept_log(RESULTS / "real" / name / f"{each}_{seed}.json") for each in ("naive", "null_space")]
    logs = [log._replace(rows=standing_for(log.rows, "task/margin", "far/margin")) for log in logs]
    return _removed(task, *logs, relative_levels(list(map(float, LEVELS)), [logs[0].rows]))


def _removed(task: str, naive: FitLog, ours: FitLog, levels: list[float]) -> tuple[str, int]:
    logs, base = {"naive": {0: naive}, "ours": {0: ours}}, base_figures(naive.rows)
    for name, level in reversed([*zip(LEVELS, levels, strict=True)]):
        share = at_level(logs, "naive", base, level)["ours"]["removed"]["mean"]
        if share is not None:
            return name, round(100 * share)
    raise SystemExit(f"{task}: no level is reached by both")


def answers_removed(task: str) -> tuple[str, int]:
    """Return by how many percent fewer far questions are answered in the trained style where the two fits of a seed end."""
    name, _, seed = task.partition(":")
    naive, ours = (
        read_json(RESULTS / "real" / name / f"{each}_{seed or 0}.json", "record", "fit again")["figures"][
            "judged"
        ]
        for each in ("naive", "null_space")
    )
    return "the end, by answers", round(100 * (1 - ours["free_far"]["rate"] / naive["free_far"]["rate"]))


def outcome(task: str) -> tuple[str, int]:
    """Return where, and how much of the naive fit's excess a null space removes, in percent."""
    name, _, seed = task.partition(":")
    if "/" in task:
        return removed_in_records(task)
    if not (RESULTS / f"real_{name}_by_margin.json").exists():
        return answers_removed(task)
    return removed_with_seed(task) if seed else removed(task)


def foreseen(run: Path) -> dict[str, Any]:
    """Return what the null space of a run, or of a fit's record, foresaw."""
    if run.is_dir():
        return json.loads((run / "null_space.json").read_text(encoding="utf-8"))
    return json.loads(run.read_text(encoding="utf-8"))["figures"]["null_space"]


def row(task: str, run: Path) -> dict[str, Any]:
    """Return what a trial foresaw and what came."""
    found = foreseen(run)
    trial, texts = found["trial"], [name for name in ("text", "own_text") if name in found]
    at, share = outcome(task)
    before = [found[name]["before training"] for name in texts]
    response = max(each["typical"] for each in before)
    outlook = Trial(trial["kept"], trial["reach"]).outlook
    most = max(trial["kept"].values())
    on_text = trial["kept"].get("text", most)
    held = share >= HALF
    return {
        "task": task.partition("/")[2].replace("/frozen_tried", "") or task,
        "kind": "toy" if "/" in task else "real",
        "is a test": "yes"
        if task.partition(":")[0] in TESTED_ON or any(world in task for world in NEW_WORLDS)
        else "no",
        "response": round(response, 2),
        "response to text": round(before[0]["typical"], 2),
        "first step on text": round(before[0]["first_step"], 2),
        "kept on text": _percent(trial["kept"].get("text")),
        "kept on own text": _percent(trial["kept"].get("own_text")),
        "most kept": _percent(most),
        "foreseen": outlook,
        "% removed": str(share),
        "at": at,
        "highest adherence": highest(task),
        "right": _yes((outlook == "likely to hold") == held),
        "right by response": _yes((response < FAILS) == held),
        "right by the most kept": _yes((most < HOLDS) == held),
        "right by the given text": _yes((on_text < HOLDS) == held),
    }


def _yes(right: bool) -> str:
    return "yes" if right else "no"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("tasks", nargs="+", help="TASK=RUN")
    parser.add_argument("--out", type=Path, default=RESULTS / "trials.json", help="file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 100], help="of the fits")
    options = parser.parse_args()
    rows = [row(task, Path(run)) for task, _, run in (each.partition("=") for each in options.tasks)]
    figures: dict[str, Any] = {}
    for name, is_test in (("made with", "no"), ("tested on", "yes")):
        here = [each for each in rows if each["is a test"] == is_test]
        if here:
            figures[name] = {"tasks": {each["task"]: each for each in here}}
            for judged in (name for name in here[0] if name.startswith("right")):
                right = sum(each[judged] == "yes" for each in here)
                figures[name][judged] = f"{right} of {len(here)}"
            figures[name]["the two rules differ on"] = sum(
                each["right by the most kept"] != each["right by the given text"] for each in here
            )
    toys = [each for each in rows if each["kind"] == "toy"]
    if len(toys) > 1:
        kept, removed_there = (
            [float(each[name].split()[0]) for each in toys] for name in ("most kept", "% removed")
        )
        figures["correlation of kept and removed over toy tasks"] = round(correlation(kept, removed_there), 2)
    command = "python benchmarks/trials.py TASK=RUN..."
    write_json_atomic(options.out, record(command, this_machine(), options.seeds, figures, None))


if __name__ == "__main__":
    main()
