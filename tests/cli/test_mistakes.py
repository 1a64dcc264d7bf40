"""Every mistake a user makes: one clear line, exit code 2, nothing half-written."""

import pytest
import torch
from conftest import make_model
from peft import get_peft_model

from graspl.adapters import AdapterFolder, LoraOptions, Site
from graspl.directions import Directions, TopSingular


def refused(result, *parts):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("graspl: error:")]
    assert code == 2, err
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    for part in parts:
        assert str(part) in lines[0], lines[0]


WRITE = '[{"class_path": "graspl.constraints.WriteConstraint"}]'
ROW = {"prompt": "how do i", "completion": "yes"}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (['{"prompt": "how"', ROW], ("train.jsonl:1", "not JSON")),
        ([], ("train.jsonl", "no rows")),
        ([ROW, {"messages": [{"role": "user", "content": "how"}]}], ("train.jsonl:2", "no assistant turn")),
        ([ROW, {"prompt": "how " * 3000, "completion": "yes"}], ("train.jsonl:2", "data.max_length")),
    ],
    ids=["broken row", "empty", "no assistant turn", "too long"],
)
def test_bad_data(graspl, chat_options, write_rows, tmp_path, rows, parts):
    options = chat_options()
    write_rows(rows)
    refused(graspl("fit", *options), *parts)
    assert not (tmp_path / "run").exists()


def test_a_missing_file(graspl, chat_options, tmp_path):
    refused(graspl("fit", *chat_options(**{"data.train": "none.jsonl"})), "none.jsonl", "cannot be read")
    assert not (tmp_path / "run").exists()


def test_a_missing_model(graspl, chat_options, tmp_path):
    refused(graspl("fit", *chat_options(**{"model.base_model": "./none"})), "base_model", "./none")
    assert not (tmp_path / "run").exists()


def test_directions_of_another_model(graspl, chat_options, tmp_path):
    B, A = torch.randn(4, 2), torch.randn(2, 4)
    directions = TopSingular()(AdapterFolder(tmp_path, "", "", [Site("model.other", A, B, 1.0)]))
    Directions(directions.sites).save(tmp_path / "d.safetensors")
    grasp = {
        "model": "graspl.methods.GRASPLitModule",
        "model.constraints": WRITE,
    }
    options = chat_options(**grasp, **{"model.directions": "d.safetensors"})
    refused(graspl("fit", *options), "directions: made for 1 sites", "graspl identify")
    assert not (tmp_path / "run").exists()
    refused(graspl("fit", *chat_options(**grasp, **{"model.directions": "none"})), "none", "graspl identify")
    refused(graspl("fit", *chat_options(**grasp)), "names no conversations, and the task has none")
    assert not (tmp_path / "run").exists()


def test_directions_of_an_equally_shaped_model(graspl, chat_options, model_folder, tmp_path):
    assert graspl("fit", *chat_options("gemma", **{"trainer.default_root_dir": "naive"}))[0] == 0
    grasp = {
        "model": "graspl.methods.GRASPLitModule",
        "model.directions": "naive/directions.safetensors",
        "model.constraints": WRITE,
    }
    refused(
        graspl("fit", *chat_options("llama", **grasp)),
        "directions: found on",
        model_folder("gemma").name,
    )
    assert not (tmp_path / "run").exists()
    options = chat_options("llama")[:4]
    refused(
        graspl(
            "validate",
            *options,
            "--model.directions=naive/directions.safetensors",
            "--trainer.default_root_dir=other",
        ),
        "directions: found on",
    )
    assert not (tmp_path / "other").exists()


LATE = {
    "trainer.callbacks": "lightning.pytorch.callbacks.EarlyStopping",
    "trainer.callbacks.monitor": "nope",
}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"trainer.val_check_interval": 5000},
            ["trainer: `val_check_interval` (5000) must be", "limit_val_batches"],
        ),
        ({"trainer.val_check_interval": 0}, ["trainer.val_check_interval: must not be 0"]),
        ({"trainer.accumulate_grad_batches": 0}, ["trainer.accumulate_grad_batches: 0 is below 1"]),
        ({"trainer.check_val_every_n_epoch": 0}, ["trainer.check_val_every_n_epoch: 0 is below 1"]),
        ({"trainer.overfit_batches": 3}, ["trainer.overfit_batches", "limit_train_batches"]),
        ({"trainer.accelerator": "gpu"}, ["trainer.accelerator: no GPU", "--trainer.accelerator cpu"]),
        ({"trainer.accelerator": "nonsense"}, ["trainer: You selected an invalid accelerator", "cpu"]),
        ({"trainer.strategy": "fsdp"}, ["trainer: The strategy `fsdp` requires a GPU"]),
        ({"trainer.max_steps": -5}, ["trainer: `max_steps`", "-5"]),
        ({"trainer.logger": "lightning.pytorch.loggers.WandbLogger"}, ["trainer: ", "pip install -U 'wandb"]),
        ({"checkpoint.save_top_k": -3}, ["checkpoint: ", "save_top_k=-3"]),
        (LATE, ["trainer.callbacks: Early stopping conditioned on metric `nope`", "train/loss"]),
        (
            {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": -1},
            ["model.optimizer: Invalid learning rate: -1"],
        ),
        ({"data.batch_size": 0}, ["batch_size", "does not conform to restriction v>0"]),
        ({"data.num_workers": -1}, ["num_workers", "does not conform to restriction v>=0"]),
        ({"seed_everything": -4}, ["seed_everything: -4 is not in bounds"]),
        ({"ckpt_path": "nope.ckpt"}, ["ckpt_path: there is no nope.ckpt"]),
    ],
)
def test_options_that_a_library_finds_wrong_are_told_in_one_line(
    graspl, chat_options, tmp_path, monkeypatch, options, parts
):
    # Also where there is one
    monkeypatch.setattr("graspl.training_checks.CUDAAccelerator.is_available", lambda: False)
    refused(graspl("fit", *chat_options(**options)), *parts)
    assert not (tmp_path / "run").exists()


def test_a_librarys_error_that_no_option_explains_keeps_its_traceback(graspl, chat_options, monkeypatch):
    def broken(*_):
        raise ValueError("a defect")

    monkeypatch.setattr("graspl.methods.lora.LoRALitModule.training_step", broken)
    with pytest.raises(ValueError, match="a defect"):
        graspl("fit", *chat_options())


def test_a_loss_that_is_not_a_number(graspl, chat_options, tmp_path):
    diverging = {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 1e30, "trainer.max_steps": 20}
    refused(graspl("fit", *chat_options(**diverging)), "train/loss is", "at step", "lower the learning rate")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ({"model": "graspl.methods.NoSuchMethod"}, "NoSuchMethod"),
        ({"model.lora.r": "many"}, "lora"),
        ({"model.lora.use_dora": "true"}, "use_dora"),
        ({"model.lora.target_modules": "none_such"}, "none_such"),
        ({"trainer.max_step": 3}, "--trainer.max_step"),
        ({"model.learning_rat": 3}, "learning_rat"),
        ({"data.batch": 3}, "'batch' is not accepted"),
        ({"model.adapter": "x"}, "model.adapter"),
        ({"data.validation_share": 3}, "validation_share"),
    ],
)
def test_bad_options(graspl, chat_options, tmp_path, option, part):
    refused(graspl("fit", *chat_options(**option)), part)
    assert not (tmp_path / "run").exists()


def test_a_used_folder_is_refused_before_anything_is_touched(graspl, chat_options, tmp_path):
    assert graspl("fit", *chat_options())[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    refused(graspl("fit", *chat_options()), "default_root_dir: run holds a run already", "--ckpt_path last")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fitt"], "fitt is no command"),
        (["fit", "--config", "none.yaml"], "none.yaml"),
        (["identify"], "source"),
        (["identify", "none"], "none"),
        (["identify", "none", "--method.kk", "2"], "kk"),
        (
            ["identify", "none", "--method", "NoSuch"],
            "Expected a dot import path string: NoSuch",
        ),
        (["identify", "none", "--ou", "x.safetensors"], "--ou"),
        (["identify", "none", "--causal.data", "none.yaml"], "--causal.data: there is no file none.yaml"),
        (["identify", "d.safetensors", "--out", "e.safetensors"], "holds directions already"),
        (["identify", "none", "--out", "x.pt"], "must end in .safetensors"),
        (["report", "none"], "graspl validate"),
        (["report", "a", "b", "--names", "a"], "1 names for 2 runs"),
    ],
)
def test_other_commands(graspl, tmp_path, arguments, part):
    (tmp_path / "d.safetensors").touch()
    refused(graspl(*arguments), part)


def test_a_checkpoint_of_another_adapter(graspl, chat_options):
    assert graspl("fit", *chat_options())[0] == 0
    other = chat_options(**{"model.lora.r": 3, "trainer.default_root_dir": "other"})
    refused(
        graspl("fit", *other, "--ckpt_path=run/checkpoints/last.ckpt"),
        "ckpt_path",
        "another model or adapter",
    )


def test_a_fit_does_not_go_on_under_other_directions(graspl, chat_options, tmp_path):
    for folder in ("naive", "second"):
        seed = ["--seed_everything=1"] if folder == "second" else []
        assert graspl("fit", *chat_options(**{"trainer.default_root_dir": folder}), *seed)[0] == 0
    grasp = {
        "model": "graspl.methods.GRASPLitModule",
        "model.directions": "naive/directions.safetensors",
        "model.constraints": WRITE,
    }
    assert graspl("fit", *chat_options(**grasp))[0] == 0
    more = ["--ckpt_path=last", "--trainer.max_steps=6"]
    other = grasp | {"model.directions": "second/directions.safetensors"}
    refused(graspl("fit", *chat_options(**other), *more), "model.directions", "and the run has had naive")
    assert graspl("fit", *chat_options(**grasp), *more)[0] == 0


def test_a_mistake_in_a_components_own_check(graspl, tmp_path):
    options = [
        "--model=graspl.organism.OrganismPretrainModule",
        "--data=graspl.organism.OrganismPretrainData",
    ]
    refused(graspl("fit", *options, "--model.world.complexity=3"), "world.complexity: 3 is not in 6..24")


def test_a_checkpoint_with_code_in_it_is_not_run(graspl, chat_options, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")  # noqa: TID251
    refused(graspl("fit", *chat_options(), f"--ckpt_path={tmp_path / 'evil.ckpt'}"), "evil.ckpt")
    assert not (tmp_path / "owned").exists()


def test_an_evaluation_of_another_models_adapter(graspl, chat_options, tmp_path):
    other = get_peft_model(make_model("llama", hidden_size=16), LoraOptions().to_peft())
    other.save_pretrained(tmp_path / "adapter")
    options = chat_options()[:4]
    refused(
        graspl("validate", *options, "--model.adapter=adapter", "--trainer.default_root_dir=other"),
        "is of another model",
        "is (16, 48) there, (32, 48) in",
    )


def test_an_adapter_of_an_equally_shaped_model_is_warned_about(graspl, chat_options, model_folder):
    assert graspl("fit", *chat_options("gemma"))[0] == 0
    options = chat_options("llama")[:4]
    code, _, err = graspl(
        "validate", *options, "--model.adapter=run/adapter", "--trainer.default_root_dir=other"
    )
    assert code == 0
    assert f"was trained on {model_folder('gemma')}, not on {model_folder('llama')}" in err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("r", "0", "lora.r: 0 is below 1"),
        ("r", "100000", "lora.r: 100000 is more than any weight of the model has; at most "),
        ("rank_pattern", '{"q_proj": 5000}', "lora.rank_pattern.q_proj: 5000 is more than any weight"),
        ("lora_alpha", "0", "lora.lora_alpha: 0 is below 1"),
        ("alpha_pattern", '{"q_proj": 0}', "lora.alpha_pattern.q_proj: 0 is below 1"),
        ("lora_dropout", "1.0", "lora.lora_dropout: 1.0 is not from 0 to below 1"),
        ("lora_dropout", "-0.5", "lora.lora_dropout: -0.5 is not from 0 to below 1"),
    ],
)
def test_an_adapter_that_cannot_learn(key, value, said, graspl, chat_options, tmp_path):
    refused(graspl("fit", *chat_options(**{f"model.lora.{key}": value})), said)
    assert not (tmp_path / "run").exists()
