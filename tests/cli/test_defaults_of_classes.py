"""A class named on the command line or in a file has its own defaults, not those of the class that it replaces.

jsonargparse hands options of a default on to the class that stands in for it, where both have them.
"""

import inspect
import json
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import yaml
from conftest import CHAT_ROWS
from pages import ROOT
from safetensors.torch import load_file

import graspl
import graspl.starts
from graspl.starts import Start

STARTS = [
    name
    for name in graspl.starts.__all__
    if issubclass(getattr(graspl.starts, name), Start) and name != "Start"
]


def own_defaults(kind):
    """Return the defaults of a class's options, by name."""
    return {
        name: each.default
        for name, each in inspect.signature(kind).parameters.items()
        if each.default is not each.empty
    }


def everything_called():
    """Yield every class and function that graspl defines."""
    for module in pkgutil.walk_packages(graspl.__path__, "graspl."):
        if module.name.endswith("__main__"):
            continue
        for each in vars(import_module(module.name)).values():
            if (inspect.isclass(each) or inspect.isfunction(each)) and each.__module__ == module.name:
                yield each


def kinds_below(kind):
    """Yield all classes that stand for one."""
    for each in kind.__subclasses__():
        yield each
        yield from kinds_below(each)


def replaced():
    """Yield each default that is an object, with a class that can replace it."""
    for called in everything_called():
        try:
            defaults = own_defaults(called)
            hints = get_type_hints(called.__init__ if inspect.isclass(called) else called)
        except (NameError, TypeError, ValueError):  # What is imported for types alone is no option
            continue
        for name, default in defaults.items():
            asked = hints.get(name)
            if getattr(asked, "__module__", "").startswith("graspl.") and inspect.isclass(asked):
                for kind in kinds_below(asked) if isinstance(default, asked) else ():
                    if not inspect.isabstract(kind) and kind is not type(default):
                        yield called, name, default, kind


def test_a_class_that_replaces_a_default_shares_no_option_of_another_value():
    found = list(replaced())
    assert any(name == "start" for _, name, _, _ in found)
    for called, name, default, kind in found:
        shared = own_defaults(type(default)).keys() & own_defaults(kind).keys()
        differ = {each for each in shared if getattr(default, each) != own_defaults(kind)[each]}
        assert not differ, f"{called.__qualname__}, {name}: {kind.__name__} would take over {differ}"


@pytest.mark.parametrize("name", STARTS)
def test_a_start_named_on_the_command_line_has_its_own_defaults(name, graspl, tmp_path):
    code, out, err = graspl(
        "fit", "--model=graspl.methods.LoRALitModule", f"--model.start=graspl.starts.{name}", "--model.base_model=organism",
        "--data=graspl.data.ChatDataModule", "--data.train=train.jsonl", "--print_config",
    )  # fmt: skip
    assert code == 0, err
    start = yaml.safe_load(out)["model"]["init_args"]["start"]
    assert start["class_path"] == f"graspl.starts.{name}"
    import graspl.starts as starts

    assert start.get("init_args", {}) == own_defaults(getattr(starts, name))


@pytest.mark.parametrize(("method", "stays"), [("null_space", True), ("grasp", False)])
def test_a_shipped_null_space_keeps_a_as_it_began_and_the_default_trains_it_where_that_hardly_helps(
    method, stays, graspl, model_folder, write_rows
):
    """By the adapters saved after two steps and after four; on a random model the null space is not likely to hold."""
    rows, text = write_rows(CHAT_ROWS), write_rows(CHAT_ROWS[::-1] * 4, "text.jsonl")
    saved = []
    for steps in (2, 4):
        code, _, err = graspl(
            "fit", "--data=graspl.data.ChatDataModule", f"--data.train={rows}", f"--data.text={text}",
            "--data.batch_size=2", f"--model={ROOT / 'configs/methods' / method}.yaml", "--model.start.own_text=0",
            f"--model.base_model={model_folder('llama')}", "--model.lora.r=4", "--trainer.accelerator=cpu",
            f"--trainer.max_steps={steps}", f"--trainer.default_root_dir=run{steps}",
        )  # fmt: skip
        assert code == 0, err
        saved.append(load_file(f"run{steps}/adapter/adapter_model.safetensors"))
        # The default has tried it first
        foreseen = json.loads(Path(f"run{steps}/null_space.json").read_text())
        assert ("trial" in foreseen) is not stays
    short, longer = saved
    for name in short:
        if "lora_A" in name:
            assert torch.equal(short[name], longer[name]) is stays, name
        else:
            assert not torch.equal(short[name], longer[name]), name
