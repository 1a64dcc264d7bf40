"""Mistakes that arguments show by themselves, told before anything heavy is imported."""

import ast
import os
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from graspl.errors import GrasplError
from graspl.local import check_local_model, check_rows_file

# First words of the options of fit and validate
GROUPS = (
    "config", "seed_everything", "trainer", "model", "data", "checkpoint", "save_adapter", "identify", "save_evaluation",
    "log_to", "generations", "interrupt", "ckpt_path", "weights_only", "print_config", "help", "help-all",
)  # fmt: skip
CLASSES = {
    "model": "--model graspl.methods.LoRALitModule (naive fit), --model graspl.methods.GRASPLitModule",
    "data": "--data graspl.data.ChatDataModule (rows of your own), or another task",
}
# Names of other programs, and what they are here
ELSEWHERE = {
    "lr": "model.optimizer.lr", "learning_rate": "model.optimizer.lr", "epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs", "steps": "trainer.max_steps", "rank": "model.lora.r", "lora_r": "model.lora.r",
    "alpha": "model.lora.lora_alpha", "lora_alpha": "model.lora.lora_alpha", "seed": "seed_everything",
    "target_modules": "model.lora.target_modules", "output_dir": "trainer.default_root_dir",
    "per_device_train_batch_size": "data.batch_size", "micro_batch_size": "data.batch_size", "batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches", "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length", "max_length": "data.max_length", "model_name_or_path": "model.base_model",
    "base_model": "model.base_model", "dataset": "data.train", "dataset_name": "data.train", "train": "data.train",
    "resume_from_checkpoint": "ckpt_path", "bf16": "trainer.precision", "max_steps": "trainer.max_steps",
}  # fmt: skip
ROWS = ("train", "validation", "text", "good", "unrelated")  # Options of the data that name files of rows
PACKAGE = Path(__file__).parent


class Given(NamedTuple):
    """An option on the command line."""

    name: str  # Without dashes
    value: str  # "" without one
    start: int  # Place of its first argument
    end: int  # Place behind its last one


def given_options(arguments: Sequence[str]) -> Iterator[Given]:
    """Yield the options among arguments, each with its value."""
    for place, argument in enumerate(arguments):
        if argument == "-c":
            argument = "--config"
        if not argument.startswith("--"):
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        end = place + 1
        if not equals and end < len(arguments) and not arguments[end].startswith("--"):
            value, end = arguments[end], end + 1
        yield Given(name, value, place, end)


def classes_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--model CLASS` before the first `--model.option`, which it would reset; so with `--data`."""
    ordered = list(arguments)
    for group in CLASSES:
        options = list(given_options(ordered))
        inner = next((each for each in options if each.name.startswith(f"{group}.")), None)
        outer = next((each for each in options if each.name == group), None)
        if inner is None or outer is None or outer.start < inner.start:
            continue
        if any(each.name == "config" and each.start < inner.start for each in options):
            continue  # The file names a class, and a second one keeps what it knows of the first one's options
        moved = ordered[outer.start : outer.end]
        del ordered[outer.start : outer.end]
        ordered[inner.start : inner.start] = moved
    return ordered


def check_training(command: str, arguments: Sequence[str]) -> None:
    """Refuse options of `fit` and `validate` that are wrong by themselves.

    Raises:
        GrasplError: an option has another name, no class is named, or a class, a folder or a file is not there.
    """
    options = list(given_options(arguments))
    for each in options:
        group = each.name.partition(".")[0].rstrip("+")
        if group not in GROUPS:
            right = meant(group, GROUPS, each.name).replace("did you mean ", "did you mean --")
            hint = meant_option(each.name, ()) or right
            raise GrasplError(joined(f"there is no option --{each.name}", hint, listed(command)))
        check_class(each)
    names = [each.name for each in options]
    if any("help" in name or name.startswith("print_config") for name in names):
        return
    _check_named(names)
    for each in options:
        if each.name == "model.base_model":
            check_local_model(each.value)
        if each.name in [f"data.{name}" for name in ROWS]:
            check_rows_file(each.value)


def _check_named(names: Sequence[str]) -> None:
    """Refuse a command line that names no class, unless a file or the environment may."""
    if "config" in names or any(name.startswith("GRASPL_") for name in os.environ):
        return
    for group, fix in CLASSES.items():
        if group not in names:
            raise GrasplError(f"{group}: no class is named; give {fix}, or a --config that names one")


def check_tool(command: str, arguments: Sequence[str]) -> None:
    """Refuse a model's folder and, for `data`, a file of rows that is not there."""
    for each in given_options(arguments):
        if each.name == "base_model":
            check_local_model(each.value)
        check_class(each)
    first = next(iter(arguments), "")
    if first and not first.startswith("-"):
        {"data": check_rows_file, "plan": check_local_model, "try": check_local_model}.get(command, str)(
            first
        )


def check_class(option: Given) -> None:
    """Refuse a class of graspl's that is not there, without importing it."""
    if not option.value.startswith("graspl.") or not option.value.replace(".", "").isidentifier():
        return
    folder, (*rooms, name) = PACKAGE, option.value.split(".")[1:]
    for room in rooms:
        if room not in modules_in(folder):
            raise _no_class(option, room, modules_in(folder))
        folder = folder / room
    known = [*names_in(folder), *modules_in(folder)]
    if name not in known:
        raise _no_class(option, name, known)


def _no_class(option: Given, name: str, known: Sequence[str]) -> GrasplError:
    hint = (
        meant(name, known, option.value)
        or f"{option.value.removesuffix(f'.{name}')} has {', '.join(sorted(known))}"
    )
    return GrasplError(joined(f"{option.name}: there is no {option.value}", hint))


def modules_in(folder: Path) -> list[str]:
    """Return the names of the modules and rooms in a folder of the package."""
    found = [*folder.glob("*.py"), *(each.parent for each in folder.glob("*/__init__.py"))]
    return [each.stem for each in found if not each.stem.startswith("_")]


def names_in(module: Path) -> list[str]:
    """Return the names that a module or room defines or imports, read from its text."""
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    tree, found = ast.parse(file.read_text(encoding="utf-8")), []
    for each in tree.body:
        if isinstance(each, ast.ClassDef | ast.FunctionDef):
            found.append(each.name)
        elif isinstance(each, ast.ImportFrom):
            found += [alias.asname or alias.name for alias in each.names]
        elif isinstance(each, ast.Assign):  # `__all__` and other lists of names
            constants = [inner for inner in ast.walk(each.value) if isinstance(inner, ast.Constant)]
            found += [constant.value for constant in constants if isinstance(constant.value, str)]
    return found


def meant(name: str, known: Iterable[str], whole: str = "") -> str:
    """Return "did you mean ...?" with the known name that is most like a name; "" where none is like it.

    Args:
        name: that is not known.
        known: all names that could stand there.
        whole: where the name stands in, e.g. a class path; it is returned with the right name.
    """
    lowered = {each.lower(): each for each in reversed([*known])}  # Of two, the first
    found = get_close_matches(name.lower(), lowered, 1)
    return f"did you mean {(whole or name).replace(name, lowered[found[0]], 1)}?" if found else ""


def meant_option(name: str, known: Iterable[str]) -> str:
    """Return "did you mean --option?" for an option that is not known; also for what other programs call it."""
    prefix, dot, last = name.rpartition(".")
    beside = [each.removeprefix(prefix + dot) for each in known if each.startswith(prefix + dot)]
    plain = last.lower().replace("-", "_")
    near = get_close_matches(plain, ELSEWHERE, 1, 0.85)
    if plain not in beside and near and (plain in ELSEWHERE or not meant(last, beside)):
        return f"did you mean --{ELSEWHERE[near[0]]}?"
    # Without what they have in common, which says nothing
    return meant(last, beside, name).replace("did you mean ", "did you mean --")


def joined(*parts: str) -> str:
    """Return the parts of a message that are there, in one line."""
    return "; ".join(filter(None, parts)).replace("?; ", "? ")


def listed(command: str) -> str:
    """Return where a command's options are listed."""
    return f"graspl {command} --help lists the options"
