"""How long a newcomer waits: `python benchmarks/first_run.py [MODEL TRAIN TEXT]`.

Without arguments `graspl demo` is timed; with a Transformers folder, rows to learn and text, `graspl try` on these.
The command runs in a pseudo-terminal of 80 columns, from a new folder and with nothing loaded. Noted are the seconds to the
first line, to the first figure (a loss) and to the end, when the report lies there. `results/first_run.json` keeps one entry
for each command.
"""

import argparse
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from real.record import record, this_machine

from graspl.runs import write_json_atomic

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "first_run.json"
FIGURE = re.compile(rb"loss \d")
NOTE = "seconds from the start of the command, in a new process"


def waited(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command in a terminal and return when something came of it."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
    started, written = time.perf_counter(), b""
    found: dict[str, Any] = {}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        while True:
            try:
                new = os.read(ours, 65536)
            except OSError:  # The terminal is closed
                break
            if not new:
                break
            written += new
            if b"\n" in written:
                found.setdefault("first line, s", round(time.perf_counter() - started, 1))
            if FIGURE.search(written):
                found.setdefault("first figure, s", round(time.perf_counter() - started, 1))
    os.close(ours)
    found["report, s"] = round(time.perf_counter() - started, 1)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{written.decode()[-3000:]}")
    assert list(folder.rglob("report.html")), "there is no report"
    return found


def main() -> None:
    """Time one command and keep its entry beside those of others."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("paths", nargs="*", type=Path, help="MODEL TRAIN TEXT")
    given = parser.parse_args().paths
    if given and len(given) != 3:
        parser.error("give MODEL, TRAIN and TEXT, or nothing")
    graspl = str(Path(sys.executable).with_name("graspl"))
    model, *rows = [str(path.resolve()) for path in given] or [""]
    with tempfile.TemporaryDirectory() as folder:
        if given:
            found = waited([graspl, "try", model, rows[0], "--text", rows[1]], Path(folder))
        else:
            found = waited([graspl, "demo"], Path(folder))
    rows_read = sum(bool(line.strip()) for line in given[1].open()) if given else 0
    name = f"graspl try, {given[0].name}, {rows_read} rows" if given else "graspl demo"
    kept = json.loads(RESULTS.read_text())["figures"]["commands"] if RESULTS.exists() else {}
    command = " ".join(["python benchmarks/first_run.py", *map(str, given)])
    figures = {"commands": kept | {name: {"command": name, **found}}}
    write_json_atomic(RESULTS, record(command, this_machine(), [0], figures, NOTE))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
