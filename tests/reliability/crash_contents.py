"""What the files of a folder say, so that two folders can be compared: all bytes, but for what may differ between equal runs.

- `metrics.csv` and its parts: the rows that count, whichever process logged them; of those, the validations. The loss of the
  step at which a checkpoint is written is logged behind it, and may be missing.
- checkpoints: weights, optimizer and step; the archive also holds the moment when it was packed, and paths.
- `lineage.json`: hashes without the times of change, none of what may differ itself, and none of the options, among which
  may be that of going on; but each result must be as recorded, and so must the records of a study's fits be.
- `run.json`: the last command and how it ended; those that were killed stand before it.
- `judged.json`: without `usage`, which counts what this command asked.
- `directions.safetensors`: tensors and metadata, which safetensors writes in any order.
- the page of a study: without the facts of its runs, of which `run.json` is the source.
- records of a study's fits: without date, machine and seconds. The logs of its fits are left out, and so is
  `study_done.json`, for which a record stands.
- the cache of replies: its rows.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from graspl.runs import Lineage, RunFolder

VOLATILE = {"judged.json": ("usage",), "record": ("date", "machine", "seconds")}
LEFT_OUT = re.compile(r"metrics(\.part\d+)?\.csv|.*\.log|study_done\.json")
PAGE = "comparison.html"
FACTS = re.compile(
    r'<h2 id="run-facts">.*?(?=<script|</main>)', re.DOTALL
)  # Which commands ran, when, and for how long
LOG = re.compile(r"(^|/)metrics(\.part\d+)?\.csv$")
RANDOM = re.compile(
    r"(?<=/tmp/tmp)[a-z0-9_]{8}|(?<=/\.tmp)[A-Za-z0-9]{6}|\.[a-z0-9_]{8}(?=/|$)"
)  # What `tempfile` puts at the end of a name


def contents(folder: Path) -> dict[str, Any]:
    """Return what each file says, by path; folders without files are named too."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            if not any(path.iterdir()) and name != "tmp":
                found[name] = "an empty folder"
        elif not LEFT_OUT.fullmatch(path.name):
            found[name] = _said(path)
    for config in folder.rglob("config.yaml"):
        run = RunFolder(config.parent)
        name = str(run.path.relative_to(folder))
        found[f"{name}/metrics"] = [row for row in run.read_metrics() if "train/loss" not in row]
        complaints = {each.name: Lineage(run).complaint(each) for each in run.results()}
        found[f"{name}/complaints"] = {
            each: why for each, why in complaints.items() if why and not LEFT_OUT.fullmatch(each)
        }
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the paths that differ, each with how."""
    lost = [f"{name} is missing" for name in one if name not in other]
    more = [f"{name} is left over" for name in other if name not in one]
    return lost + more + [f"{name} differs" for name in one if name in other and one[name] != other[name]]


def state_of(folder: Path) -> str:
    """Return a digest of the names and bytes of all files, but for the random part of temporary names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda each: RANDOM.sub("", str(each))):
        digest.update(RANDOM.sub("", str(path.relative_to(folder))).encode() + b"\0")
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def figures(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a JSON file with its place in it, but for what is told of the commands that ran."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "commands":
                yield from figures(value, f"{name}.{key}")
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from figures(value, f"{name}.{place}")
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, content


def _said(path: Path) -> Any:
    if any(part.startswith(".") for part in path.parts):  # Left over, perhaps cut off
        return path.read_bytes()
    if path.suffix == ".ckpt":
        return _learnt(path)
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as rows:
            return sorted(rows.execute("SELECT key, reply FROM replies").fetchall())
    if path.name == "directions.safetensors":
        with safe_open(path, "pt") as file:
            return file.metadata(), {name: _plain(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    if path.name in ("lineage.json", "run.json"):
        return _recorded(json.loads(path.read_text()), path.parent)
    if path.name == PAGE:
        return FACTS.sub("", path.read_text())
    return _of_result(path)


def _of_result(path: Path) -> Any:
    if path.parent.name == "kept":
        content = _without(json.loads(path.read_text()), VOLATILE["record"])
        content["figures"]["rows"] = [row for row in content["figures"]["rows"] if "train/loss" not in row]
        return content
    if path.name in VOLATILE:
        return _without(json.loads(path.read_text()), VOLATILE[path.name])
    return path.read_bytes()


def _learnt(path: Path) -> Any:
    kept = torch.load(path, weights_only=True)  # noqa: TID251 - as Lightning reads it
    return _plain({name: kept[name] for name in ("state_dict", "optimizer_states", "global_step", "epoch")})


def _plain(content: Any) -> Any:
    """Return tensors as bytes, which can be compared."""
    if isinstance(content, torch.Tensor):
        return (tuple(content.shape), content.contiguous().numpy().tobytes())
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list | tuple) else content


def _recorded(record: dict[str, Any], folder: Path) -> Any:
    if "commands" in record:
        return record["status"], record["commands"][-1]["command"], record["commands"][-1]["status"]
    entries = record["results"]
    kept = {name: entry for name, entry in entries.items() if not name.startswith("metrics")}
    for digests in kept.get("directions.safetensors", {}).get("files", {}).values():
        digests.pop("sha256")
    for entry in kept.values():
        fits = entry.get("made_from", {}).get("fit", {})
        for name in fits:  # A record tells its own date and seconds
            fits[name] = [each["sha256"] == _digest(folder.parent / name) for each in fits[name].values()]
        if PAGE in entry.get("files", {}):
            entry["files"][PAGE] = entry["files"][PAGE]["sha256"] == _digest(folder / PAGE)
    kept |= {"judged.json": sorted(kept.get("judged.json", {}))}
    return _without(kept, ("changed", "settings", "given"))


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _without(content: Any, names: tuple[str, ...]) -> Any:
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if name not in names}
        # A study is made from the logs of its fits, whose parts may differ
        return {name: _without(value, names) for name, value in kept.items() if not LOG.search(name)}
    return [_without(value, names) for value in content] if isinstance(content, list) else content
