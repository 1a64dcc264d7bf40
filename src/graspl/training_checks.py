"""Options of a fit that Lightning, torch or a logger find wrong, told in one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy

from graspl.adapters.checkpoint import check_loads, is_checkpoint, read_checkpoint
from graspl.errors import GrasplError, foreign, shorten, users_mistake
from graspl.runs import RunFolder, parse_yaml

KEYWORDS = ("last", "best", "hpc")  # What Lightning takes instead of a checkpoint's path
SAME_STRATEGY = "use the strategy that wrote it"
# Which option an error is about, by the module that raises it or a package around it; the first that fits.
OPTIONS = {
    "lightning.pytorch.callbacks.model_checkpoint": "checkpoint",
    "lightning.pytorch.callbacks": "trainer.callbacks",
    "lightning.fabric.utilities.seed": "seed_everything",
    "torch.optim": "model.optimizer",
    "lightning": "trainer",
    "lightning_utilities": "trainer",
    "jsonargparse": "trainer",
}
COMPLAINTS = MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError
TRACKERS = ("wandb", "trackio")  # Their errors are of classes of their own
# Of the trainer's options, those that change what is learnt; of the data's and the model's, those that do not.
FIXED = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
ONLY_EVALUATION = (
    "suites",
    "final_suites",
    "only_suites",
    "eval_batch_size",
    "share_prefixes",
    "num_workers",
)
NEUTRAL = tuple(
    f"model.init_args.{name}"
    for name in ("measure_kl", "gradient_checkpointing", "compile_layers", "attn_implementation")
)
MAY_CHANGE = ("the trainer's steps, devices and strategy", "the suites", "checkpoints", "loggers")
# The trainer's options that count from 1, which Lightning takes for granted.
FROM_ONE = ("accumulate_grad_batches", "check_val_every_n_epoch")


def find_run(config: Any) -> None:
    """Take the folder that a run's own config.yaml lies in as the run folder, wherever the command is started."""
    for given in config.config or []:
        path = Path(str(given))
        folder = path.parent
        if path != RunFolder(folder).config or not path.is_file():
            continue
        with foreign(path, "is not YAML that can be read", "correct it"):
            kept = parse_yaml(path.read_text(encoding="utf-8"))
        trainer = kept.get("trainer") if isinstance(kept, dict) else None
        root = trainer.get("default_root_dir") if isinstance(trainer, dict) else None
        # Another one on the command line stands
        if (
            isinstance(root, str)
            and root == config.trainer.default_root_dir
            and folder.resolve() != Path(root).resolve()
        ):
            config.trainer.default_root_dir = str(folder)


def check_options(config: Any) -> None:
    """Refuse options of the trainer and a checkpoint that Lightning does not check itself."""
    options, checkpoint = config.trainer, config.ckpt_path
    for name in FROM_ONE:
        if options[name] is not None and options[name] < 1:
            raise GrasplError(f"trainer.{name}: {options[name]} is below 1")
    if options.val_check_interval == 0:
        raise GrasplError("trainer.val_check_interval: must not be 0; use limit_val_batches to skip it")
    if options.accelerator == "gpu" and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        raise GrasplError("trainer.accelerator: no GPU was found; use --trainer.accelerator cpu")
    if options.overfit_batches:
        raise GrasplError("trainer.overfit_batches: not supported; set limit_train_batches and max_epochs")
    is_path = checkpoint and checkpoint not in KEYWORDS and ":" not in checkpoint
    if is_path and not Path(checkpoint).exists():
        raise GrasplError(f"ckpt_path: there is no {checkpoint}; give a checkpoint of this run, or last")


def check_same(run: RunFolder, config: str) -> None:
    """Refuse to go on with other settings than a run has had so far.

    Args:
        run: the folder of the run that goes on.
        config: its configuration now, as YAML.

    Raises:
        GrasplError: an option of the model or the training data differs, or the seed; all others may change.
    """
    if not run.config.exists():
        return
    with foreign(run.config, "is not YAML that can be read", "put back the run's own"):
        kept = parse_yaml(run.config.read_text(encoding="utf-8"))
    before, now = (dict(_settings(content)) for content in (kept, parse_yaml(config)))
    for name in [*before, *(each for each in now if each not in before)]:
        old, new = before.get(name), now.get(name)
        if old != new:
            option = name.replace(".init_args", "")  # As on the command line
            fix = f"set it back, or start a new run; {', '.join(MAY_CHANGE)} may change"
            raise GrasplError(f"{option}: is {new}, and the run has had {old} so far; {fix}")


def _settings(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options that make a fit what it is, each with its name."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            inner = f"{name}.{key}" if name else str(key)
            if name or key in ("seed_everything", "model", "data"):
                yield from _settings(value, inner)
            elif key == "trainer":
                yield from ((f"trainer.{each}", value.get(each)) for each in FIXED)
    elif (
        name.removeprefix("data.init_args.").partition(".")[0] not in ONLY_EVALUATION and name not in NEUTRAL
    ):
        yield name, config


def check_unused(run: RunFolder) -> None:
    """Refuse a folder that holds a run."""
    if run.is_used():
        fix = "give another folder, or go on with --ckpt_path last"
        raise GrasplError(f"trainer.default_root_dir: {run.path} holds a run already; {fix}")


def check_readable(path: Path, strategy: Strategy) -> None:
    """Refuse a checkpoint that the strategy cannot read."""
    if not is_checkpoint(path):
        return
    if path.is_file():
        check_loads(path)
    sharding = isinstance(strategy, ModelParallelStrategy)
    if path.is_dir() and not sharding:
        fix = "add --config configs/trainer/fsdp.yaml and the number of devices, 1 will do"
        raise GrasplError(f"ckpt_path: {path} is sharded; {fix}")
    if path.is_file() and sharding:
        raise GrasplError(f"ckpt_path: {path} is whole, FSDP2 needs a sharded one; {SAME_STRATEGY}")
    if isinstance(strategy, FSDPStrategy) and not read_checkpoint(path).is_flat_sharded:
        raise GrasplError(f"ckpt_path: {path} was written without FSDP1; {SAME_STRATEGY}")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn a library's complaint about an option into a GrasplError that names the option."""
    try:
        yield
    except Exception as error:
        option = None if users_mistake(error) else _option(error)
        if option is None:
            raise
        raise GrasplError(f"{option}: {shorten(str(error))}") from error


def _option(error: Exception) -> str | None:
    """Return the option that an error is about, or None where no known library raised it."""
    if type(error).__module__.partition(".")[0] in TRACKERS:
        return "log_to"
    if not isinstance(error, COMPLAINTS):
        return None
    # In the library's own code: an error that graspl or a model raises is a defect, and keeps its traceback
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = f"{frame.f_globals.get('__name__')}."
    found = next((option for place, option in OPTIONS.items() if module.startswith(f"{place}.")), None)
    # Lightning raises it for nothing else; other RuntimeErrors of its loops may be anything
    if isinstance(error, MisconfigurationException):
        return found or "trainer"
    return None if isinstance(error, RuntimeError) and found != "trainer.callbacks" else found
