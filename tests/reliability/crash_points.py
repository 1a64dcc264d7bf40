"""Kill `graspl` at every change of a file, run the next command, and see what comes of it.

    python tests/reliability/crash_points.py [--every N] [--first N] [--commands fit judge] [--out results/crash_points.json]

Each command runs once undisturbed, while the kernel reports every system call that changes a file in the folder
(`tracing.py`): these are the points. Then, for each point, it runs again from the same files and is killed with SIGKILL right
before the call; for a write also after half of its bytes; in a study also only the process that makes the call. The next
command follows: the same one again, or what its one line says. The files must then be those of the undisturbed run
(`crash_contents.py` says what may differ), with nothing left over. Other commands that a user may run instead must refuse in
one line or show the same figures. No run may end in a traceback.

That no point is missed is checked twice. A system call on no list (`syscalls.py`) fails the sweep. And in the undisturbed run
names, sizes and times of all files are compared between one point and the next: a change that no point stands for fails it.
What neither sees: memory of a file that is shared by mapping it is seen when it is mapped, not when it is written (graspl's
commands map none so), and SIGKILL is not a loss of power: what the kernel was given, it keeps.

Stops that leave the same names and bytes as an earlier stop of the same command are not followed up again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import crash_commands
from crash_commands import COMMANDS, TESTS, Command, Ended, Place, endpoint
from crash_contents import RANDOM, contents, differences, figures, state_of
from tracing import Point, Stop

sys.path.append(str(TESTS.parent / "benchmarks"))
from real.record import record, this_machine

NOTE = "swept in parts; command, commit and date are of the last; `every` 1: stopped at each point"
LAST = "--ckpt_path=last"


@dataclass
class Found:
    """What the stops of one command came to."""

    points: int = 0
    """Changes of files in an undisturbed run."""
    calls: dict[str, int] = field(default_factory=dict)
    """Of the points, by system call."""
    every: int = 1
    """The command was stopped at each so many points."""
    stops: int = 0
    """How often the command was killed."""
    states: int = 0
    """Different files that were left, each of which was followed up."""
    equal: int = 0
    """Stops after which the same command ended with the files of the undisturbed run."""
    advised: int = 0
    """Stops after which one line said what to do, and that gave these files."""
    lines: dict[str, int] = field(default_factory=dict)
    """These lines, and after how many stops."""
    wrong: list[str] = field(default_factory=list)
    """All else."""


def sweep(place: Place, command: Command, every: int, first: int = 0) -> Found:
    """Kill a command at each of its points from the first one on, or at every so many of them, and follow up."""
    place.restore(command.before)
    trace = place.trace(command.arguments, watch=True)
    found = Found(len(trace.points), dict(Counter(point.call for point in trace.points)), every)
    if trace.code or trace.unknown or trace.unseen:
        found.wrong.append(
            f"ended with {trace.code}; unknown calls {trace.unknown}; not seen: {trace.unseen}"
        )
    wanted, known = contents(place.work), dict[str, tuple[str, str]]()
    shown = _shown(place, command)
    for stop in _stops(trace.points, every, command.name == "compare"):
        if stop.point < first:
            continue
        point = trace.points[stop.point]
        told = f"{stop.point}{' half' * stop.half}{' alone' * stop.alone}, {_masked(point)}"
        found.stops += 1
        place.restore(command.before)
        cut = place.trace(command.arguments, stop)
        if len(cut.points) <= stop.point or _masked(cut.points[stop.point]) != _masked(point):
            found.wrong.append(f"{told}: another point came instead")
            continue
        if (
            cut.code is not None and "Traceback" in place.said.read_text()
        ):  # A worker was killed, and the study goes on
            found.wrong.append(f"{told}: {place.said.read_text()[-300:]}")
        state = state_of(place.work)
        if state not in known:
            found.wrong += [f"{told}: {each}" for each in _looked(place, command, shown)]
            known[state] = _followed(place, command, wanted)
        _count(found, *known[state], told)
    found.states = len(known)
    return found


def _count(found: Found, how: str, line: str, told: str) -> None:
    found.equal += how == "equal"
    found.advised += how == "advised"
    if how == "advised":
        found.lines[line] = found.lines.get(line, 0) + 1
    if how == "wrong":
        found.wrong.append(f"{told}: {line}")
        print(found.wrong[-1], file=sys.stderr, flush=True)


def _stops(points: list[Point], every: int, workers: bool) -> list[Stop]:
    stops = []
    for number, point in list(enumerate(points))[every // 2 :: every]:
        stops.append(Stop(number))
        if point.size > 1:
            stops.append(Stop(number, half=True))
        if workers:
            stops.append(Stop(number, alone=True))
    return stops


def _masked(point: Point) -> tuple[str, str]:
    return point.call, RANDOM.sub("", point.path)


def _followed(place: Place, command: Command, wanted: dict[str, Any]) -> tuple[str, str]:
    """Run the command again, and what its line says; return `equal`, `advised` or `wrong`, and the line or what is wrong."""
    ended, lines = place.run(command.arguments), []
    while ended.code != 0 and len(lines) < 3:
        if not ended.is_refusal:
            return "wrong", f"no line, code {ended.code}: {ended.said[-400:]}"
        lines.append(ended.line.removeprefix("graspl: error: "))
        ended = _obeyed(place, command, ended)
    if ended.code != 0:
        return "wrong", " / ".join(lines)
    differing = differences(wanted, contents(place.work))
    if differing:
        return "wrong", "; ".join([*lines, *differing])
    return ("advised", " / ".join(lines)) if lines else ("equal", "")


def _obeyed(place: Place, command: Command, ended: Ended) -> Ended:
    """Do what a line says: go on from the last checkpoint, or begin in another folder, for which the emptied one stands."""
    if LAST.replace("=", " ") in ended.line:
        return place.run((*command.arguments, LAST))
    if command.before:
        return ended
    place.restore("")
    return place.run(tuple(each for each in command.arguments if each != LAST))


def _shown(place: Place, command: Command) -> dict[str, list[dict[str, float]]]:
    """Return the figures that each other command gives before the command, and after an undisturbed run of it."""
    shown: dict[str, list[dict[str, float]]] = {look: [] for look in command.looks}
    place.keep("undisturbed")
    for state in (command.before, "undisturbed"):
        for look in command.looks if state else ():
            place.restore(state)
            place.run(_look(look))
            shown[look].append(_figures(place, look))
    return shown


def _looked(place: Place, command: Command, shown: dict[str, list[dict[str, float]]]) -> list[str]:
    """Run other commands on what is left, each on a copy, and return what is wrong with what they show."""
    problems = []
    if command.looks:
        place.keep("left")
    for look in command.looks:
        place.restore("left")
        for old in _results(place, look):
            old.unlink(missing_ok=True)
        ended = place.run(_look(look))
        if ended.code == 0:
            # All of them are of before or all of after: never some of each
            odd = [sorted(_figures(place, look).items() - each.items())[:3] for each in shown[look]]
            problems += [] if not all(odd) else [f"then {look} shows {odd}"]
        elif not ended.is_refusal:
            problems.append(f"then {look} ends with {ended.code}: {ended.said[-300:]}")
    if command.looks:
        place.restore("left")
    return problems


def _look(name: str) -> tuple[str, ...]:
    return crash_commands.COMMANDS[name].arguments


def _results(place: Place, look: str) -> list[Path]:
    names = {
        "validate": ["run/evaluation.json"],
        "judge": ["run/judged.json"],
        "report": ["report/summary.json"],
    }
    return [place.work / name for name in names[look]]


def _figures(place: Place, look: str) -> dict[str, float]:
    found = {}
    for file in _results(place, look):
        content = json.loads(file.read_text()) if file.exists() else {}
        content.pop("usage", None)
        found |= dict(figures(content))
    return found


def main() -> None:
    """Sweep, write what was found, and say it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="stop only at each so many points")
    parser.add_argument("--first", type=int, default=0, help="begin with this point, to look at some again")
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--out", type=Path, default=Path("results/crash_points.json"))
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        _, url = endpoint()
        place = Place(folder, url)
        place.import_what_they_need()
        # Commands that were swept before stay, so that a sweep can be made in parts
        found = json.loads(options.out.read_text())["figures"]["commands"] if options.out.exists() else {}
        for name in options.commands:
            found[name] = {
                "command": name,
                **asdict(sweep(place, COMMANDS[name], options.every, options.first)),
            }
            print(name, json.dumps(found[name]), flush=True)
            totals = {
                key: sum(each[key] for each in found.values())
                for key in ("points", "stops", "states", "equal", "advised")
            }
            totals["wrong"] = sum(len(each["wrong"]) for each in found.values())
            command = " ".join(["python", "tests/reliability/crash_points.py", *sys.argv[1:]])
            content = record(command, this_machine(), [0], {"all": totals, "commands": found}, NOTE)
            options.out.write_text(json.dumps(content, indent=2) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if totals["wrong"] else 0)


if __name__ == "__main__":
    main()
