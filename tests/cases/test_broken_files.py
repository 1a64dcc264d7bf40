"""Every file that a command opens, broken in many ways: one line and exit code 2, or it is used; never a traceback.

What a command opens is not listed here but watched, so no kind of file can be forgotten.
"""

import json
import os
import random
import re
import shutil
import sys
import zlib
from pathlib import Path

import pytest
import whole_loop
import yaml
from endpoint import Stub, completion
from opened import Opened
from records import recorded
from whole_loop import COMMANDS, TABLES

from graspl.cli import main
from graspl.runs.digests import sha256_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="opened files are watched with inotify"),
    pytest.mark.filterwarnings("default"),
]
EVERY = bool(os.environ.get("GRASPL_EVERY_MUTATION"))  # All ways with all commands, which takes about an hour
DEEP = 100_000  # Levels
CONTROL = re.compile(
    r"[\x00-\x09\x0b-\x0c\x0e-\x1f\x7f-\x9f]"
)  # All but line breaks, and what progress bars go back with
# Run folders, whose results count only while they are as recorded
RUNS = ("naive", "held")
ALWAYS = ("null", "deep object", "half")
WHOLE, EDITS = 2, 2  # Of other contents and of values in them, where not all are tried
VALUES = (
    None,
    [],
    {},
    "text",
    -1,
    0,
    True,
    10**30,
    float("nan"),
    float("inf"),
    [[]],
    "1/0",
    1e-300,
    {"a": None},
)


def whole(data: bytes) -> dict[str, bytes]:
    """Return contents that stand for a whole file, by name."""
    return {
        "empty": b"", "null": b"null", "list": b"[]", "object": b"{}", "lists": b"[[], [1]]", "text": b"text",
        "nan": b"NaN", "infinity": b"1e999", "huge integer": b"1" * 5000, "deep list": b"[" * DEEP,
        "deep object": b'{"a":' * DEEP, "deep yaml": b"- " * 5000 + b"a", "not utf-8": b"\xff\xfe\xfa{}", "zeros": bytes(100),
        "half": data[: len(data) // 2], "start": data[:9], "end missing": data[:-1], "doubled": data + data,
        "byte-order mark": b"\xef\xbb\xbf" + data, "escapes": data + b"\n\x1b[2J\x07",
    }  # fmt: skip


def places(content, path=()):
    """Yield the path of every value in JSON-like content."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in list(items)[:40]:
        yield (*path, key)
        if len(path) < 5:
            yield from places(value, (*path, key))


def edited(content, path, value=...):
    """Return content with the value at a path replaced, or removed."""
    content = json.loads(json.dumps(content))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def parsed(name: str, data: bytes):
    """Return a file's content and how to write it again; None of other kinds of file."""
    kind = Path(name).suffix
    if kind in (".json", ".yaml"):
        load = json.loads if kind == ".json" else yaml.safe_load
        return load(data), lambda content: (json.dumps if kind == ".json" else yaml.safe_dump)(
            content
        ).encode()
    if kind == ".jsonl":
        lines = [json.loads(line) for line in data.decode().splitlines()]
        return lines[:2], lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()
    return None


def within(name: str, data: bytes, *, every: bool):
    """Yield contents with one value replaced or removed."""
    found = parsed(name, data)
    if found is None:
        return
    content, written = found
    picked = random.Random(zlib.crc32(name.encode()))
    for path in places(content):
        yield f"without {path}", written(edited(content, path))
        for value in VALUES if every else picked.sample(VALUES, 1):
            yield f"{path} = {value!r}", written(edited(content, path, value))


def state(folder: Path) -> dict:
    """Return size and time of change of each file of a folder, None of a folder in it."""
    found = {}
    for each in folder.rglob("*"):
        stat = each.lstat()
        is_folder = each.is_dir() and not each.is_symlink()
        found[str(each.relative_to(folder))] = None if is_folder else (stat.st_mtime_ns, stat.st_size)
    return found


def cases_of(name: str, data: bytes, *, seed: str) -> list[tuple[str, bytes]]:
    """Return broken contents of a file with what was done to them: all, or a choice that a seed makes."""
    contents, edits = [*whole(data).items()], [*within(name, data, every=EVERY)]
    if EVERY:
        return contents + edits
    picked = random.Random(zlib.crc32(seed.encode()))
    always = [each for each in contents if each[0] in ALWAYS]
    rest = picked.sample([each for each in contents if each[0] not in ALWAYS], WHOLE)
    return always + rest + picked.sample(edits, min(len(edits), EDITS))


class Loop:
    """A copy of the whole loop's folder, which is put back after each command."""

    def __init__(self, kept: Path, folder: Path) -> None:
        self.kept, self.folder, self.capsys = kept, folder, None
        folder.mkdir()
        self.restore()

    def restore(self) -> None:
        """Put back what differs; the folder itself stays, since it is the current one."""
        wanted, now = state(self.kept), state(self.folder)
        for name in sorted(now, reverse=True):
            if wanted.get(name, "new") != now[name]:
                each = self.folder / name
                (each.rmdir if each.is_dir() and not each.is_symlink() else each.unlink)()
        for name in sorted(wanted):
            if now.get(name, "gone") != wanted[name]:
                if wanted[name] is None:
                    (self.folder / name).mkdir()
                else:
                    shutil.copy2(self.kept / name, self.folder / name)

    def is_as_kept(self, name: str) -> bool:
        """Whether a file that was written again has the same content."""
        here, there = self.folder / name, self.kept / name
        return here.is_file() and there.is_file() and here.read_bytes() == there.read_bytes()

    def broken(self, command, name: str, content: bytes) -> str | None:
        """Run a command with a file that has other content; return what is wrong with how it ended."""
        (self.folder / name).write_bytes(content)
        run = name.split("/")[0]
        if run in RUNS and not name.endswith("lineage.json"):
            recorded(self.folder / run)
        try:
            return self.wrong(command)
        finally:
            self.restore()

    def wrong(self, command) -> str | None:
        """Run a command on the folder as it is; return what is wrong with how it ended."""
        before = state(self.folder)
        self.capsys.readouterr()
        try:
            code = main(command)
        except SystemExit as end:
            code = end.code
        except Exception as error:  # noqa: BLE001 - any is a defect, and all are listed
            return f"raised {type(error).__name__}: {str(error)[:200]}"
        err = self.capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("graspl: error: ")]
        if code not in (0, 1, 2):
            return f"ended with {code}"
        if "Traceback" in err or CONTROL.search(err):
            return f"printed {err[-300:]!r}"
        if code != 2:
            return None
        if len(lines) != 1:
            return f"said {err[-300:]!r}"
        changed = {
            each
            for each, now in state(self.folder).items()
            if before.get(each, "new") != now and not self.is_as_kept(each)
        }
        # What was asked already is kept, and a command that failed is recorded
        if {
            each for each in changed if not each.startswith("cache.sqlite") and Path(each).name != "run.json"
        }:
            return f"left {sorted(changed)}"
        return None


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Return the folder of a loop that was run once."""
    folder, server = tmp_path_factory.mktemp("kept"), Stub(lambda prompt, number: (200, completion("80")))
    here = Path.cwd()
    os.chdir(folder)

    def run(*arguments):
        assert main(list(arguments)) == 0

    try:
        whole_loop.build(folder, run, server.url)
        yield folder
    finally:
        os.chdir(here)
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture
def loop(kept, tmp_path, capsys, monkeypatch):
    found = Loop(kept, tmp_path / "loop")
    found.capsys = capsys
    monkeypatch.chdir(tmp_path / "loop")
    # New fits would take their time, and read no other files
    monkeypatch.setattr(
        "graspl.studies.workers.run_fits", lambda fits, **_: ((each, "not run") for each in fits)
    )
    return found


def opened_by(loop, command) -> list[str]:
    """Return the files whose content an undisturbed command uses: those it opens and did not write; a hash says nothing."""
    with Opened(loop.folder) as seen, pytest.MonkeyPatch.context() as patch:
        for module in ("graspl.runs.digests", "graspl.studies.inputs", "graspl.methods.state"):
            patch.setattr(f"{module}.sha256_of", seen.leaving_out(sha256_of))
        assert main(command) in (0, 1)
    loop.restore()
    return sorted(name for name in seen.names if (loop.folder / name).is_file())


def variants(command_name):
    command = COMMANDS[command_name]
    return (
        [[*command[:-1], f"--data.train={table}"] for table in TABLES]
        if command_name == "fit on rows"
        else [command]
    )


# Those that train or evaluate take minutes: `make thorough`
SLOW = [name for name in COMMANDS if name.startswith(("fit", "grasp", "go on", "validate"))]
DONE: set[tuple[str, str]] = set()


@pytest.mark.parametrize(
    "command_name",
    [pytest.param(name, marks=pytest.mark.thorough) if name in SLOW else name for name in COMMANDS],
)
def test_broken_files(command_name, loop):
    problems = []
    for command in variants(command_name):
        for name in opened_by(loop, command):
            for case, content in cases_of(
                name, (loop.kept / name).read_bytes(), seed=f"{command_name} {name}"
            ):
                if (name, case) in DONE:
                    continue
                if not EVERY:
                    DONE.add((name, case))
                wrong = loop.broken(command, name, content)
                if wrong:
                    problems.append(f"{command_name}: {name}: {case}: {wrong}")
    assert not problems, f"{len(problems)} problems\n" + "\n".join(problems)
