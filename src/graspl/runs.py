"""The run folder: which file lies where, and how files are written and read back.

The only place that knows the file names. Every file is written under a temporary name and renamed.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from graspl.errors import GrasplError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path (file or folder) beside ``path`` and rename it to ``path`` on success.

    Nothing is left behind when the block raises. A folder that stood at ``path`` is replaced.

    Args:
        path: where the finished file or folder shall lie; its parents are made.

    Raises:
        GrasplError: the place cannot be written (permissions, full disk, a file where a folder must be).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise GrasplError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        target = scratch / path.name
        yield target
        _share(target)
        if path.is_dir():
            shutil.rmtree(path)
        target.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise GrasplError(
            f"{path}: writing failed ({reason}); free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _share(path: Path) -> None:
    """Give files the permissions that a file opened here would have; safetensors makes them for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            file.chmod(0o666 & ~mask)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json_atomic(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with NaN refused, atomically."""
    write_text_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_json_lines_atomic(path: Path, rows: Iterable[Any]) -> None:
    """Write one row a line, atomically."""
    write_text_atomic(
        path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    )


def _read_json_lines(path: Path, mend: str) -> list[dict[str, Any]]:
    """Return the rows of a file that graspl wrote; [] where there is none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise GrasplError(f"{path}: a line is not JSON ({error}); {mend}") from error


def _read_json(path: Path, what: str, mend: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GrasplError(f"{path}: no {what} there; {mend}") from error
    except (OSError, ValueError) as error:
        raise GrasplError(f"{path}: not readable as JSON ({error}); {mend}") from error


def _read_numbers(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [{key: float(cell) for key, cell in row.items() if key and cell} for row in rows]
    except (TypeError, ValueError) as error:
        raise GrasplError(f"{path}: a cell is not a number ({error}); fit again") from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder for this process within the block; the claim ends with the process, however it ends.

    Args:
        folder: made where it is not there.

    Raises:
        GrasplError: another process has it, or it cannot be written.
    """
    path = folder / ".claimed"
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise GrasplError(
            f"trainer.default_root_dir: another process is writing to {folder}; wait for it, or give another folder"
        ) from error
    except OSError as error:
        raise GrasplError(
            f"trainer.default_root_dir: {folder} cannot be written ({error.strerror}); give another folder"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


class RunFolder:
    """One run's folder, `trainer.default_root_dir`.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The complete configuration; `graspl fit --config` with it repeats the run."""
        return self.path / "config.yaml"

    @property
    def adapter(self) -> Path:
        """The adapter in PEFT format."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        """Lightning checkpoints, for resuming."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """What Lightning's CSVLogger wrote."""
        return self.path / "metrics.csv"

    @property
    def directions(self) -> Path:
        """The directions identified from this run's adapter."""
        return self.path / "directions.safetensors"

    @property
    def evaluation(self) -> Path:
        """What `graspl validate` measured."""
        return self.path / "evaluation.json"

    @property
    def generations(self) -> Path:
        """Answers in the model's own words, JSON lines."""
        return self.path / "generations.jsonl"

    @property
    def cost(self) -> Path:
        """Floating-point operations of the fit, where they were counted."""
        return self.path / "cost.json"

    @property
    def items(self) -> Path:
        """One value a question of the suites of choices, JSON lines."""
        return self.path / "items.jsonl"

    @property
    def judgements(self) -> Path:
        """What a judge said about each answer, JSON lines."""
        return self.path / "judgements.jsonl"

    @property
    def judged(self) -> Path:
        """Rates over the judgements."""
        return self.path / "judged.json"

    def is_used(self) -> bool:
        """Whether a fit has written here: a configuration, an adapter or checkpoints."""
        return self.config.exists() or self.adapter.exists() or self.checkpoints.exists()

    def read_evaluation(self) -> dict[str, Any]:
        """Return the content of `evaluation.json`.

        Raises:
            GrasplError: it is not there or not JSON; names the command that makes it.
        """
        mend = f"run: graspl validate --config {self.config}"
        return _read_json(self.evaluation, "evaluation", mend)

    def read_judged(self) -> dict[str, Any]:
        """Return the content of `judged.json`.

        Raises:
            GrasplError: it is not there or not JSON; names the command that makes it.
        """
        return _read_json(self.judged, "rates", f"run: graspl judge {self.path}")

    def read_cost(self) -> dict[str, float] | None:
        """Return the content of `cost.json`; None where the operations were not counted.

        Raises:
            GrasplError: it is not JSON.
        """
        return _read_json(self.cost, "cost", "fit again") if self.cost.exists() else None

    def set_metrics_aside(self) -> None:
        """Keep the rows logged so far when a run goes on: the logger begins its file anew."""
        if self.metrics.exists():
            self.metrics.rename(self.path / f"metrics.part{len(self._metrics_parts()) + 1}.csv")

    def _metrics_parts(self) -> list[Path]:
        """Return the files that earlier processes of this run logged to, oldest first."""
        parts = self.path.glob("metrics.part*.csv")
        return sorted(parts, key=lambda path: int(path.stem.removeprefix("metrics.part")))

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the logged rows with their numeric cells; [] where there are none.

        A run that was resumed logged some steps twice; the later rows count.
        """
        rows: list[dict[str, float]] = []
        for path in [*self._metrics_parts(), *([self.metrics] if self.metrics.exists() else [])]:
            later = _read_numbers(path)
            first = min((row["step"] for row in later if "step" in row), default=float("inf"))
            rows = [row for row in rows if row.get("step", 0) < first] + later
        return rows

    def read_generations(self) -> list[dict[str, Any]]:
        """Return the rows of `generations.jsonl`; [] where there is no such file."""
        return _read_json_lines(self.generations, "validate again")

    def read_items(self) -> list[dict[str, Any]]:
        """Return the rows of `items.jsonl`; [] where there is no such file."""
        return _read_json_lines(self.items, "validate again")

    def read_judgements(self) -> list[dict[str, Any]]:
        """Return the rows of `judgements.jsonl`; [] where there is no such file."""
        return _read_json_lines(self.judgements, "judge again")


class DirectionsFiles:
    """What lies beside a directions file, under its name.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def assumptions(self) -> Path:
        """The assumption report, by `graspl identify`."""
        return self.path.with_suffix(".assumptions.json")

    @property
    def explanation(self) -> Path:
        """What they mean, by `graspl explain`."""
        return self.path.with_suffix(".explanation.json")

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return one of them; None where it was not made."""
        return _read_json(path, "report", "make it again") if path.exists() else None


def adapter_of(path: Path) -> Path:
    """Return the adapter's folder where a run folder is given, else the path itself."""
    run = RunFolder(path)
    return run.adapter if run.adapter.is_dir() else path
