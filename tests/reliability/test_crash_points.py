"""A sample of the stops of the crash harness, and that it sees what it says; `make crash` makes all of them."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the harness traces Linux on x86-64"
)
WORK = """
import ctypes, os, sqlite3, subprocess, sys
from pathlib import Path
from tracing import Stop, traced
folder = Path(sys.argv[1]).resolve()
def work():
    os.chdir(folder)
    with open("a", "w") as file:
        file.write("hello")
        file.flush()
        os.fsync(file.fileno())
    os.replace("a", "b")
    Path("c").mkdir()
    ctypes.CDLL(None).renameat2(-100, b"b", -100, b"c", 2)
    rows = sqlite3.connect("rows.db")
    rows.execute("CREATE TABLE t (a)")
    rows.close()
    subprocess.run(["sh", "-c", "echo hi > d"])
    return 3
trace = traced(work, folder, watch=True)
print(trace.code, trace.unknown, trace.unseen)
print(*(point.call for point in trace.points if point.path in ("a", "b", "c", "d")))
print(any(point.path == "rows.db-journal" for point in trace.points))
"""
CUT = """
import os, sys
from pathlib import Path
from tracing import Stop, traced
folder = Path(sys.argv[1]).resolve()
def work():
    (folder / "a").write_text("hello")
    return 0
for stop in (Stop(0), Stop(1), Stop(1, half=True), Stop(2)):
    trace = traced(work, folder, stop)
    print(trace.code, (folder / "a").read_text() if (folder / "a").exists() else None)
"""
MAPPED = """
import mmap, sys
from pathlib import Path
from tracing import traced
folder = Path(sys.argv[1]).resolve()
(folder / "a").write_text("hello")
def work():
    with open(folder / "a", "r+b") as file, mmap.mmap(file.fileno(), 5) as shared:
        shared[0] = 0
        shared.flush()
    (folder / "b").write_text("")
    return 0
trace = traced(work, folder, watch=True)
print(trace.points[0].call, bool(trace.unseen))
"""


def said(program, folder):
    done = subprocess.run(
        [sys.executable, "-c", program, folder],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_change_of_a_folder_is_seen_whoever_makes_it(tmp_path):
    ended, calls, by_sqlite = said(WORK, tmp_path)
    assert ended == "3 set() []"
    assert calls == "openat write fsync rename mkdir renameat2 openat write"
    assert by_sqlite == "True"


def test_a_process_is_killed_before_a_change_or_within_a_write(tmp_path):
    assert said(CUT, tmp_path) == ["None None", "None ", "None he", "0 hello"]


def test_a_change_that_no_call_makes_is_noticed(tmp_path):
    """Memory that is shared with a file changes it without a call: the harness would say so."""
    assert said(MAPPED, tmp_path) == ["mmap True"]


@pytest.mark.slow
def test_what_follows_a_crash_gives_the_same_files_or_one_line(tmp_path):
    out = tmp_path / "found.json"
    command = [
        sys.executable,
        HERE / "crash_points.py",
        "--every",
        "43",
        "--commands",
        "fit",
        "validate",
        "judge",
        "report",
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--out", out],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["figures"]["all"]
    assert found["wrong"] == 0
    assert found["stops"] == found["equal"] + found["advised"] > 10
