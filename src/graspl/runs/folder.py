"""The run folder: which file lies where. This is the only place that knows the file names."""

from pathlib import Path
from typing import Any

from graspl.runs.files import read_json, read_json_lines, read_numbers


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
        return read_json(self.evaluation, "evaluation", mend)

    def read_judged(self) -> dict[str, Any]:
        """Return the content of `judged.json`.

        Raises:
            GrasplError: it is not there or not JSON; names the command that makes it.
        """
        return read_json(self.judged, "rates", f"run: graspl judge {self.path}")

    def read_cost(self) -> dict[str, float] | None:
        """Return the content of `cost.json`; None where the operations were not counted.

        Raises:
            GrasplError: it is not JSON.
        """
        return read_json(self.cost, "cost", "fit again") if self.cost.exists() else None

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
            later = read_numbers(path)
            first = min((row["step"] for row in later if "step" in row), default=float("inf"))
            rows = [row for row in rows if row.get("step", 0) < first] + later
        return rows

    def read_generations(self) -> list[dict[str, Any]]:
        """Return the rows of `generations.jsonl`; [] where there is no such file."""
        return read_json_lines(self.generations, "validate again")

    def read_items(self) -> list[dict[str, Any]]:
        """Return the rows of `items.jsonl`; [] where there is no such file."""
        return read_json_lines(self.items, "validate again")

    def read_judgements(self) -> list[dict[str, Any]]:
        """Return the rows of `judgements.jsonl`; [] where there is no such file."""
        return read_json_lines(self.judgements, "judge again")


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
        """What they mean, by `graspl identify --explain.text`."""
        return self.path.with_suffix(".explanation.json")

    @property
    def causal(self) -> Path:
        """What moving the base model along them does, by `graspl identify --causal.data`."""
        return self.path.with_name("causal.json")

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return one of them; None where it was not made."""
        return read_json(path, "report", "make it again") if path.exists() else None


def adapter_of(path: Path) -> Path:
    """Return the adapter's folder where a run folder is given, else the path itself."""
    run = RunFolder(path)
    return run.adapter if run.adapter.is_dir() else path
