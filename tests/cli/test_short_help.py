"""Short help, and mistakes on the command line told with a fix, before anything heavy is imported where that can be."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from test_mistakes import refused

from graspl import cli, preflight
from graspl.data.tables import _READERS, TABLES, UNPACKED_BY
from graspl.errors import GrasplError
from graspl.local import ENDINGS, PACKED, check_local_model, check_rows_file
from graspl.preflight import classes_first, given_options, meant_option
from graspl.training_help import OPTIONS, WIDTH, training_help

LIGHT = """
import contextlib, io, json, sys
from graspl.cli import main

results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    heavy = [each for each in ("torch", "lightning", "transformers", "peft", "datasets") if each in sys.modules]
    results.append([code, heavy, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""
NAMED = {
    "model": "graspl.methods.LoRALitModule", "model.base_model": "organism", "model.optimizer": "torch.optim.AdamW",
    "data": "graspl.data.ChatDataModule", "data.train": "train.jsonl",
}  # fmt: skip


def lightly(folder, *commands):
    """Run commands in a process of their own: exit code, heavy imports, stdout and stderr of each."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(commands)], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def resolved(graspl, command):
    """Return the options in force of a command with classes named, each by its name on the command line."""
    code, out, err = graspl(
        command, *(f"--{name}={value}" for name, value in NAMED.items()), "--print_config"
    )
    assert code == 0, err

    def flat(config, prefix=""):
        for name, value in config.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            yield f"{prefix}{name}".replace(".init_args", "").replace(".class_path", ""), value

    return dict(flat(yaml.safe_load(out)))


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_of_the_short_help_are_there_with_their_defaults(command, graspl):
    known = resolved(graspl, command)
    for option in OPTIONS[command]:
        assert option.name in known or option.name == "config", option.name
        if option.default is not None:
            assert known[option.name] == option.default, option.name


@pytest.mark.parametrize("command", OPTIONS)
def test_the_short_help_is_short(command):
    text = training_help(command, cli.TRAINING[command])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(text.splitlines()) <= 60
    assert len(OPTIONS[command]) <= 20
    assert {"data.train", "model.base_model"} <= {option.name for option in OPTIONS[command]}


def test_help_needs_nothing_heavy_and_all_help_has_the_rest(tmp_path, graspl):
    for code, heavy, out, err in lightly(tmp_path, ["fit", "--help"], ["validate", "-h"], ["--help"]):
        assert (code, heavy, err) == (0, [], "")
        assert "usage: graspl" in out
    code, out, _ = graspl("fit", "--help-all")
    assert code == 0
    for option in (
        "--trainer.gradient_clip_val",
        "--checkpoint.every_n_train_steps",
        "--data.help",
        "--config",
    ):
        assert option in out


def test_the_groups_of_options_are_those_of_the_parser(graspl):
    for command in OPTIONS:
        code, out, _ = graspl(command, "--help-all")
        assert code == 0
        names = {each.rstrip("+]") for each in re.findall(r"--([a-z_]+)", out)}
        assert names - {"optimizer", "lr_scheduler"} <= set(preflight.GROUPS), command


CLASSES = ["fit", "--model", NAMED["model"], "--data", NAMED["data"]]
EARLY = [
    (["fit"], "model: no class is named; give --model graspl.methods.LoRALitModule (naive fit)"),
    (
        ["fit", "--model", "graspl.methods.LoRALitModule"],
        "data: no class is named; give --data graspl.data.Chat",
    ),
    (["fit", "--model.base_model", "x", "--data.train", "y"], "model: no class is named"),
    (
        ["fit", "--modle.base_model", "x"],
        "did you mean --model.base_model? graspl fit --help lists the options",
    ),
    (["fit", "--learning-rate", "1e-4"], "did you mean --model.optimizer.lr?"),
    (["validate", "--ckptpath", "x"], "did you mean --ckpt_path? graspl validate --help lists"),
    (["fit", "--model", "graspl.methods.LoraLitModule"], "did you mean graspl.methods.LoRALitModule?"),
    (["fit", "--model=graspl.method.GRASPLitModule"], "did you mean graspl.methods.GRASPLitModule?"),
    (
        ["fit", "--model", "graspl.methods.lora.LoRALit"],
        "did you mean graspl.methods.lora.LoRALitModule?",
    ),
    (["fit", "--model.penalties+", "graspl.penalties.L2Penalti"], "did you mean graspl.penalties.L2Penalty?"),
    (
        ["identify", "x", "--method", "graspl.directions.TopSingula"],
        "did you mean graspl.directions.TopSingular?",
    ),
    (["data", "none.jsonl", "--base_model", "organism"], "none.jsonl: cannot be read"),
    (["data", "x", "--base_model", "./none"], "base_model: no folder ./none"),
    (["fitt"], "fitt is no command; did you mean fit? choose from fit, validate, try"),
    (["repotr", "x"], "did you mean report?"),
    ([*CLASSES, "--model.base_model", "./none"], "no folder ./none"),
    ([*CLASSES, "--model.base_model=/a/b/c"], "no folder /a/b/c"),
    ([*CLASSES, "--data.train", "none.jsonl"], "none.jsonl: cannot be read (No such file"),
    ([*CLASSES, "--data.text", "none.csv.gz"], "none.csv.gz: cannot be read"),
]


def test_what_arguments_show_by_themselves_is_told_before_anything_heavy(tmp_path):
    found = lightly(tmp_path, *(arguments for arguments, _ in EARLY))
    for (arguments, part), (code, heavy, _, err) in zip(EARLY, found, strict=True):
        assert (code, heavy) == (2, []), arguments
        assert part in err, arguments
        assert len(err.splitlines()) == 1


def test_a_fit_says_at_once_that_it_starts(graspl, chat_options):
    _, _, err = graspl("fit", *chat_options(**{"trainer.max_stepz": 3}))
    assert err.splitlines()[0].startswith("graspl ")
    assert "loading" in err.splitlines()[0]


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        (
            {"trainer.max_step": 3},
            ["did you mean --trainer.max_steps?", "graspl fit --help lists the options"],
        ),
        ({"model.learning_rate": 3}, ["did you mean --model.optimizer.lr?"]),
        ({"model.lora.rr": 3}, ["did you mean --model.lora.r?"]),
        ({"data.batchsize": 3}, ["did you mean --data.batch_size?"]),
        ({"model.zzz": 3}, ["Option 'zzz' is not accepted; graspl fit --help lists the options"]),
        ({"model": "LoRALitModul"}, ["did you mean LoRALitModule?"]),
        ({"trainer.max_steps": "many"}, ["Got value: many; graspl fit --help lists the options"]),
    ],
)
def test_lines_of_the_parser_name_a_fix(option, parts, graspl, chat_options):
    refused(graspl("fit", *chat_options(**option)), *parts)


def test_a_required_option_is_named(graspl, write_rows):
    rows = write_rows([{"prompt": "how", "completion": "yes"}] * 4)
    classes = ["--model", NAMED["model"], "--data", NAMED["data"], "--data.train", rows]
    refused(graspl("fit", *classes), "give --model.base_model; graspl fit --help")
    refused(graspl("identify", "--metod", "x"), "graspl identify --help lists the options")


def test_options_before_their_class_are_those_of_the_class(graspl, chat_options):
    options = chat_options()
    classes = [each for each in options if each.startswith(("--model=", "--data="))]
    others = [each for each in options if each not in classes]
    code, _, err = graspl("fit", *others, *classes)
    assert code == 0, err


def test_only_a_class_that_comes_too_late_is_moved():
    assert classes_first(["fit", "--model.x", "1", "--b", "2", "--model", "A"]) == [
        "fit", "--model", "A", "--model.x", "1", "--b", "2",
    ]  # fmt: skip
    assert classes_first(["fit", "--data.x=1", "--data=A"]) == ["fit", "--data=A", "--data.x=1"]
    for stays in (
        ["fit", "--model", "A", "--model.x", "1", "--model", "B"],
        ["fit", "--config", "c.yaml", "--model.x", "1", "--model", "B"],
        ["fit", "-c", "c.yaml", "--model.x", "1", "--model", "B"],
        ["fit", "--model.x", "1"],
        ["fit", "--model", "A"],
    ):
        assert classes_first(stays) == stays


def test_a_config_that_names_no_class_is_told_with_what_to_do(graspl, tmp_path):
    (tmp_path / "a.yaml").write_text("trainer: {max_steps: 1}\n")
    refused(
        graspl("fit", "--config", "a.yaml", "--model.base_model", "organism"),
        "model: no class is named before its options; give --model graspl.methods.LoRALitModule",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model: {class_path: graspl.methods.LoraLitModule}\n", "did you mean LoRALitModule?"),
        ("model: {class_path: graspl.method.LoRALitModule}\n", "did you mean methods?"),
        (
            "model: {class_path: graspl.methods.LoRALitModule}\ntrainer: {max_step: 3}\n",
            "did you mean --trainer.max_steps?",
        ),
        ("model: {class_path: graspl.methods.LoRALitModule}\ntrainr: {r: 1}\n", "trainr"),
    ],
)
def test_mistakes_in_a_file_are_told_with_what_was_meant(text, part, graspl, chat_options, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    chosen = [each for each in chat_options() if not each.startswith("--model=")]
    refused(graspl("fit", "--config=a.yaml", *chosen), part, "graspl fit --help lists the options")


def test_options_are_read_with_their_values():
    found = [
        (each.name, each.value) for each in given_options(["x", "--a", "1", "--b=2", "-c", "f", "--d", "--e"])
    ]
    assert found == [("a", "1"), ("b", "2"), ("config", "f"), ("d", ""), ("e", "")]


def test_what_is_like_nothing_is_not_guessed():
    known = ["trainer.max_steps", "trainer.profiler"]
    assert meant_option("trainer.foo", known) == ""
    assert meant_option("trainer.max_step", known) == "did you mean --trainer.max_steps?"


def test_endings_of_files_are_those_that_are_read(tmp_path):
    assert set(ENDINGS) == {*_READERS, *TABLES}
    assert set(PACKED) == set(UNPACKED_BY)
    (tmp_path / "there.jsonl").touch()
    for source in ("org/name", "name", tmp_path / "there.jsonl", "name:split", tmp_path / "none"):
        check_rows_file(str(source))
    with pytest.raises(GrasplError, match=r"none\.JSONL\.gz: cannot be read"):
        check_rows_file("none.JSONL.gz")
    for model in ("organism", "org/name", str(tmp_path)):
        check_local_model(model)
    with pytest.raises(GrasplError, match="no folder"):
        check_local_model("~/none")
