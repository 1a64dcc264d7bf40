"""Experiment trackers by name, for `--log_to`: `metrics.csv` is written all the same."""

from importlib.util import find_spec
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from graspl.errors import GrasplError
from graspl.runs import RunFolder

Tracker = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "graspl"


class TrackioLogger(Logger):
    """Logs to Trackio, which keeps its figures on this machine or in a Hugging Face Space.

    Lightning has no logger for it. Give a `space_id`, or set the variable `TRACKIO_SPACE_ID`, to log to a Space.

    Args:
        project: Trackio's project.
        name: the run's name there; Trackio makes one up by default.
        space_id: the Space to log to; by default figures stay on this machine, and `trackio show` opens them.
    """

    def __init__(self, project: str = PROJECT, name: str | None = None, space_id: str | None = None) -> None:
        super().__init__()
        self.project, self.run_name, self.space_id = project, name, space_id
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The run's name."""
        return self.run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run, started where it is first asked for."""
        if self._run is None:
            import trackio  # type: ignore[import-not-found]

            self._run = trackio.init(
                project=self.project, name=self.run_name, space_id=self.space_id, embed=False
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the options to the run folder's `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log figures of one step."""
        self.experiment.log(metrics, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left, and end Trackio's run."""
        if self._run is not None:
            import trackio  # type: ignore[import-not-found]

            trackio.finish()
            self._run = None


def check_tracker(name: Tracker | None) -> None:
    """Refuse a tracker that is not installed."""
    if name is not None and find_spec(name) is None:
        raise GrasplError(f"log_to: {name} is not installed; pip install 'graspl[{name}]'")


def make_tracker(name: Tracker, run: RunFolder) -> Logger:
    """Return the logger of a tracker, named after the run folder.

    Args:
        name: `tensorboard`, `trackio` or `wandb`.
        run: TensorBoard's and W&B's files go to its folder `logs`.
    """
    title = run.path.resolve().name
    if name == "trackio":
        return TrackioLogger(name=title)
    run.logs.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        return WandbLogger(project=PROJECT, name=title, save_dir=run.logs)
    return TensorBoardLogger(str(run.logs), name="", version="")
