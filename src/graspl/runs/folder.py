"""The run folder: which file lies where. This is the only place that knows the file names."""

from pathlib import Path
from typing import Any

from graspl.runs.files import read_json, read_json_lines, read_numbers
from graspl.runs.forms import Form

COST = {"start_flops": float, "step_flops": float}  # Forms of files, see `graspl.runs.forms`

STUDY = ("study.json", "study_done.json")  # How a study knows its fits


class RunFolder:
    """One run's folder, `trainer.default_root_dir`, with the path of each file that may lie in it.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"  # Complete; `graspl fit --config` with it repeats the run
        self.adapter = self.path / "adapter"  # In PEFT format
        self.checkpoints = self.path / "checkpoints"  # Lightning's, to resume from
        self.metrics = self.path / "metrics.csv"  # What Lightning's CSVLogger wrote
        self.directions = self.path / "directions.safetensors"  # Identified from this run's adapter
        self.evaluation = self.path / "evaluation.json"  # What `graspl validate` measured
        self.generations = self.path / "generations.jsonl"  # Answers in the model's own words
        self.cost = self.path / "cost.json"  # Floating-point operations of the fit, where they were counted
        self.items = self.path / "items.jsonl"  # One value for each question of the suites of choices
        self.judgements = self.path / "judgements.jsonl"  # What a judge said about each answer
        self.judged = self.path / "judged.json"  # Rates over the judgements
        self.null_space = self.path / "null_space.json"  # How the update responds to general text
        self.facts = self.path / "run.json"  # Which commands ran here, and how each ended
        self.lineage = self.path / "lineage.json"  # What each result was made from, by SHA-256
        self.audit = (
            self.path / "audit.json"
        )  # What an audit found, in a folder of its own; its page lies beside it
        self.comparison = (
            self.path / "comparison.json"
        )  # In a study's folder; `.csv`, `.md`, `.svg` and `.html` lie beside it
        self.tuning = self.path / "tuning.json"  # In a study's folder: its trials
        self.logs = self.path / "logs"  # What TensorBoard or W&B keeps, with `--log_to`
        self.own_text = self.path / "own_text.jsonl"  # What the base model wrote before training

    def is_used(self) -> bool:
        """Whether a fit has written here: a configuration, an adapter or checkpoints."""
        return self.config.exists() or self.adapter.exists() or self.checkpoints.exists()

    def results(self) -> list[Path]:
        """Return the files and folders here that hold a result.

        In a run folder that is all but the configuration, checkpoints and records; in another what graspl may write there.
        """
        others = {self.config, self.checkpoints, self.lineage, self.facts, self.logs}
        others |= {self.path / name for name in STUDY}
        found = sorted(self.path.iterdir()) if self.path.is_dir() else []
        if not (self.is_used() or self.evaluation.exists()):
            known = {each.stem for each in vars(self).values() if each != self.path}
            found = [each for each in found if each.is_file() and each.stem in known]
        return [each for each in found if each not in others and not each.name.startswith(".")]

    def read_evaluation(self) -> dict[str, Any]:
        """Return the content of `evaluation.json`. Without it, the error names the command that makes it."""
        return read_json(self.evaluation, "evaluation", f"run: graspl validate --config {self.config}")

    def read_judged(self) -> dict[str, Any]:
        """Return the content of `judged.json`. Without it, the error names the command that makes it."""
        return read_json(self.judged, "rates", f"run: graspl judge {self.path}")

    def read_cost(self) -> dict[str, float] | None:
        """Return the content of `cost.json`; None where the operations were not counted."""
        return read_json(self.cost, "cost", "fit again", COST) if self.cost.exists() else None

    def set_metrics_aside(self) -> None:
        """Keep the rows logged so far when a run goes on: the logger starts its file again."""
        if self.metrics.exists():
            self.metrics.rename(self.path / f"metrics.part{len(self._metrics_parts()) + 1}.csv")

    def put_metrics_back(self) -> None:
        """Undo `set_metrics_aside` where nothing was logged since."""
        parts = self._metrics_parts()
        if parts and not self.metrics.exists():
            parts[-1].rename(self.metrics)

    def _metrics_parts(self) -> list[Path]:
        """Return the files that earlier processes of this run logged to, oldest first."""
        numbered = (
            (path.stem.removeprefix("metrics.part"), path) for path in self.path.glob("metrics.part*.csv")
        )
        return [
            path for _, path in sorted((int(number), path) for number, path in numbered if number.isdecimal())
        ]

    def metrics_files(self) -> list[Path]:
        """Return the files with logged rows, oldest first: one for each process of the run."""
        return [*self._metrics_parts(), *([self.metrics] if self.metrics.exists() else [])]

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the logged rows with their numeric cells; [] without a log.

        A run that was resumed logged some steps twice; the later rows count. A resumed run may begin with the validation of
        a step whose other row was logged before.
        """
        rows: list[dict[str, float]] = []
        for path in self.metrics_files():
            later = read_numbers(path)
            first = min((row["step"] for row in later if "step" in row), default=float("inf"))
            again = {name for row in later if row.get("step") == first for name in row} - {"step", "epoch"}
            rows = [
                row
                for row in rows
                if row.get("step", 0) < first or (row.get("step") == first and not again & row.keys())
            ] + later
        return rows

    def read_generations(self) -> list[dict[str, Any]]:
        """Return the rows of `generations.jsonl`; [] where there is no such file."""
        return read_json_lines(self.generations, "validate again")

    def read_items(self) -> list[dict[str, Any]]:
        """Return the rows of `items.jsonl`; [] where there is no such file."""
        return read_json_lines(
            self.items,
            "validate again",
            {"suite": str, "item": str, "group": str, "value": float, "text": str | None},
        )

    def read_judgements(self) -> list[dict[str, Any]]:
        """Return the rows of `judgements.jsonl`; [] where there is no such file."""
        return read_json_lines(
            self.judgements, "judge again", {"suite": str, "question": str, "outcome": str}
        )


class DirectionsFiles:
    """The reports beside a directions file, which bear its name.

    Args:
        path: the directions file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.assumptions = self.path.with_suffix(".assumptions.json")  # By `graspl identify`
        self.explanation = self.path.with_suffix(".explanation.json")  # By `graspl identify --explain.text`
        self.causal = self.path.with_name("causal.json")  # By `graspl identify --causal.data`

    def read(self, path: Path, form: Form = object) -> dict[str, Any] | None:
        """Return one of them, which must have a form; None where it was not made."""
        return read_json(path, "report", "make it again", form) if path.exists() else None


def adapter_of(path: Path) -> Path:
    """Return the adapter's folder where a run folder is given, else the path itself."""
    run = RunFolder(path)
    return run.adapter if run.adapter.is_dir() else path
