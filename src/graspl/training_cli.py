"""`graspl fit` and `graspl validate`: Lightning's command line with graspl's run folder."""

import atexit
import gc
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, set_parsing_settings
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from graspl.adapters.checkpoint import check_loads
from graspl.callbacks import (
    RowsLogger,
    SaveAdapter,
    SaveCheckpoints,
    SaveDirections,
    SaveEvaluation,
    SaveGenerations,
    SaveOnInterrupt,
    WholeCheckpoints,
)
from graspl.callbacks.console import with_console
from graspl.callbacks.record import record_log, recorded
from graspl.callbacks.trackers import Tracker, check_tracker, make_tracker
from graspl.errors import GrasplError, shorten
from graspl.hints import names_of, with_fix
from graspl.methods.lora import LoRALitModule
from graspl.quiet import be_quiet
from graspl.runs import Lineage, RunFolder, claimed, write_text_atomic
from graspl.training_checks import (
    check_options,
    check_readable,
    check_same,
    check_unused,
    find_run,
    told_in_one_line,
)

log = logging.getLogger(__name__)

DEFAULT_ROOT = "runs/default"
PARSER = {"allow_abbrev": False, "default_env": True, "env_prefix": "GRASPL", "exit_on_error": False}


def leave_process_group() -> None:
    """Close the connections to other processes: Python may abort (exit code 134) if gloo's threads still run at its end."""
    if distributed.is_available() and distributed.is_initialized():
        # The traceback just printed holds the model, and the model holds the connections
        for name in ("last_exc", "last_value", "last_traceback"):
            setattr(sys, name, None)
        # So does the command line, which jsonargparse keeps
        for each in [each for each in gc.get_objects() if isinstance(each, GrasplCLI)]:
            vars(each).clear()
        gc.collect()
        # FSDP2's meshes outlive the fit (the parser and DTensor's caches hold them), and they hold the connections too
        for mesh in [each for each in gc.get_objects() if isinstance(each, DeviceMesh)]:
            getattr(mesh, "_pg_registry", {}).clear()
        # Without a barrier: after an error, the others must see a closed connection and end too
        distributed.destroy_process_group()


def _explains(arguments: Sequence[str]) -> bool:
    """Whether a command line asks what options mean, as `--help` and `--model.help CLASS` do."""
    return any("help" in each for each in arguments)


class SaveRunConfig(SaveConfigCallback):
    """Writes a fit's complete configuration to `<default_root_dir>/config.yaml`."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it, without the checkpoint that this process resumed from."""
        if trainer.state.fn == "fit":
            config = self.config.clone()
            config["ckpt_path"] = None
            text = self.parser.dump(config, skip_none=False)
            write_text_atomic(RunFolder(trainer.default_root_dir).config, text)


class GrasplCLI(LightningCLI):
    """Fits and validates; the run folder is `trainer.default_root_dir`."""

    def __init__(self) -> None:
        be_quiet()
        atexit.register(leave_process_group)
        # A data module's options are fields, with a docstring under each. To read those takes longer than all the rest.
        set_parsing_settings(docstring_parse_attribute_docstrings=_explains(sys.argv))
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"default_root_dir": DEFAULT_ROOT},
            parser_kwargs=PARSER,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the two phases; the sets name arguments that the command line fills itself."""
        every = LightningCLI.subcommands()
        # Its table of every figure, whole and in 16 digits
        phases = {"fit": every["fit"], "validate": every["validate"] | {"verbose"}}
        # The options of the phase that is not asked for are not needed
        return {name: phases[name] for name in sys.argv[1:2] if name in phases} or phases

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, each with its own options."""
        parser.add_lightning_class_args(SaveCheckpoints, "checkpoint")
        parser.set_defaults({"checkpoint.every_n_train_steps": 100, "checkpoint.save_last": True})
        # In this order: the directions are read from the adapter just written
        parser.add_lightning_class_args(SaveAdapter, "save_adapter")
        parser.add_lightning_class_args(SaveDirections, "identify")
        parser.add_lightning_class_args(SaveEvaluation, "save_evaluation")
        parser.add_lightning_class_args(SaveGenerations, "generations")
        parser.add_lightning_class_args(SaveOnInterrupt, "interrupt")
        about = "tracker that gets every figure too; metrics.csv is always written"
        parser.add_argument("--log_to", type=Tracker | None, default=None, help=about)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the command line; what is wrong with it is told with a fix, and so is a broken checkpoint, read next."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            command = sys.argv[1] if sys.argv[1:] else ""
            names = names_of(self._parser(command)) if command in self.subcommands() else []
            raise GrasplError(with_fix(shorten(str(error)), command, names)) from error
        checkpoint = Path(self.config[self.config.subcommand].ckpt_path or "")
        if checkpoint.is_file():
            check_loads(checkpoint)

    @property
    def run(self) -> RunFolder:
        """The run folder of the parsed configuration."""
        return RunFolder(self._get(self.config, "trainer").default_root_dir or DEFAULT_ROOT)

    def before_instantiate_classes(self) -> None:
        """Refuse options that make no sense, and a folder that holds another run, before anything is built."""
        config = self.config[self.config.subcommand]
        find_run(config)
        check_options(config)
        check_tracker(config.log_to)
        if self.config.subcommand == "fit" and config.checkpoint.filename is None:
            # Named by epoch and step: a fit that goes on writes over what one that was killed left, instead of beside it
            config.checkpoint.enable_version_counter = False
        Lineage(self.run).read()  # A broken record is told before anything is written
        if self.config.subcommand == "fit" and not config.trainer.fast_dev_run and not config.ckpt_path:
            check_unused(self.run)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a validation takes the run folder's adapter and directions."""
        super().instantiate_classes()
        if not isinstance(self.model, LoRALitModule):
            return
        if self.config.subcommand == "validate":
            self._take_from_run(self.model)
        elif self.model.adapter is not None:
            raise GrasplError("model.adapter: is for validate; leave it out, a fit starts a new adapter")

    def _take_from_run(self, model: LoRALitModule) -> None:
        """Evaluate the run folder's adapter, on its directions, unless others are named."""
        checkpoint = self.config.validate.ckpt_path
        if model.adapter is None and checkpoint is None and self.run.adapter.exists():
            model.adapter = str(self.run.adapter)
        elif model.adapter is None and checkpoint is None and self.run.is_used():
            again = f"go on with: graspl fit --config {self.run.config} --ckpt_path last"
            others = "or give --ckpt_path a checkpoint; or measure the base model in a new --trainer.default_root_dir"
            raise GrasplError(
                f"trainer.default_root_dir: the fit in {self.run.path} has not ended, so it has no adapter; {again}; {others}"
            )
        if not isinstance(model.directions, str) and self.run.directions.exists():
            model.directions = str(self.run.directions)
        nothing = "the base model: no adapter is named or in the run folder"
        log.info("evaluating %s", model.adapter or checkpoint or nothing)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; logs go to `metrics.csv` in the run folder where no logger is named."""
        config = self._get(self.config_init, "trainer")
        fitting = self.config.subcommand == "fit" and not config.fast_dev_run
        log = RowsLogger(str(self.run.path), name="", version="") if fitting else False
        if config.logger in (None, True):
            # A validation leaves the figures of the fit alone; its own are in evaluation.json
            kwargs["logger"] = log
        kwargs["callbacks"] = with_console(config)
        trainer = super().instantiate_trainer(**kwargs)
        if not isinstance(
            trainer.strategy, ModelParallelStrategy | FSDPStrategy
        ):  # They write folders of their own
            given = trainer.strategy._checkpoint_io  # As `checkpoint_io` would make one
            trainer.strategy.checkpoint_io = WholeCheckpoints() if given is None else given
        if log and log not in trainer.loggers:  # Reports read it, whatever loggers are named
            trainer.loggers = [*trainer.loggers, log]
        tracker = self._get(self.config, "log_to")
        if tracker and not config.fast_dev_run:
            trainer.loggers = [*trainer.loggers, make_tracker(tracker, self.run)]
        if config.fast_dev_run:
            kept = [callback for callback in trainer.callbacks if not isinstance(callback, ModelCheckpoint)]  # type: ignore[attr-defined]
            trainer.callbacks = kept  # type: ignore[attr-defined]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run.checkpoints)
        return trainer

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Run the fit; a run that the user's input makes fail leaves no folder behind."""
        existed = self.run.path.exists()
        # Tensors and plain values alone are read, but for the index of a sharded checkpoint, which PyTorch unpickles
        kwargs["weights_only"] = True
        if checkpoint := kwargs.get("ckpt_path"):
            path = self.run.checkpoints / "last.ckpt" if checkpoint == "last" else Path(checkpoint)
            check_readable(path, self.trainer.strategy)
        # Of several processes the first writes; a dry run writes nothing
        writes = self.trainer.is_global_zero and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        # Around the removal below: another process's folder is never removed
        with claimed(self.run.path) if writes else nullcontext():
            if writes and not checkpoint:
                check_unused(self.run)  # that process may have ended by now
            if checkpoint and existed:
                check_same(self.run, self._parser("fit").dump(self.config.fit, skip_none=False))
            with self._recorded(model, writes):
                self._fit(model, existed, writes, kwargs)

    def _fit(self, model: LightningModule, existed: bool, writes: bool, options: dict[str, Any]) -> None:
        try:
            if options.get("ckpt_path") and existed:
                self.run.set_metrics_aside()
            with told_in_one_line():
                self.trainer.fit(model, **options)
        except GrasplError:
            if not existed and not any(self.run.checkpoints.glob("*.ckpt")):
                shutil.rmtree(self.run.path, ignore_errors=True)
            self.run.put_metrics_back()
            raise
        finally:
            if writes and self.run.path.exists():
                record_log(self.trainer, model)

    def validate(self, model: LightningModule, **kwargs: Any) -> None:
        """Run the validation."""
        kwargs |= {"weights_only": True, "verbose": False}
        with self._recorded(model, self.trainer.is_global_zero):
            self.trainer.validate(model, **kwargs)

    def _recorded(self, model: LightningModule, writes: bool) -> AbstractContextManager[None]:
        """Record how the command starts and ends, where this process writes."""
        name, seed = self.config.subcommand, self._get(self.config, "seed_everything")
        text = self._parser(name).dump(self.config[name], skip_none=False)
        return recorded(self.run, model, name, text, seed=seed, writes=writes)
