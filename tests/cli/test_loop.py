"""The loop a user takes, on tiny real models: fit, identify, GRASP fit, validate, report."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from graspl.adapters import read_adapter
from graspl.directions import Directions
from graspl.runs import RunFolder


def holding(constraint, directions="naive/directions.safetensors", **options):
    """Return the options of a GRASP fit that holds one constraint on a file's directions."""
    part = {"class_path": f"graspl.constraints.{constraint}", "init_args": options}
    return {
        "model": "graspl.methods.GRASPLitModule",
        "model.directions": directions,
        "model.constraints": json.dumps([part]),
    }


GRASP = holding("WriteConstraint")


def ok(result):
    code, out, err = result
    assert code == 0, err
    return out


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "llama"])
def test_the_whole_loop(graspl, chat_options, model_folder, kind, tmp_path):
    fast = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}
    ok(graspl("fit", *chat_options(kind, **{"trainer.default_root_dir": "naive"}, **fast)))
    assert "self_attn.q_proj" in ok(graspl("identify", "naive", "--out", "again.safetensors"))
    written = Directions.load("naive/directions.safetensors")
    assert written.metadata["adapter_sha256"] == read_adapter("naive/adapter").sha256
    for name, site in Directions.load("again.safetensors").sites.items():
        assert torch.equal(site.U, written.sites[name].U)
    ok(graspl("fit", *chat_options(kind, **{"trainer.default_root_dir": "grasp"}, **fast, **GRASP)))
    for run in ("naive", "grasp"):
        ok(graspl("validate", "--config", f"{run}/config.yaml"))
    ok(graspl("validate", *chat_options(kind, **{"trainer.default_root_dir": "base"})[:4], "--trainer.accelerator=cpu",
              "--trainer.default_root_dir=base"))  # fmt: skip
    table = ok(graspl("report", "base", "naive", "grasp", "--out", "together"))
    assert "naive" in table
    summary = json.loads((tmp_path / "together" / "summary.json").read_text())
    assert set(summary) == {
        "base",
        "naive",
        "grasp",
        "matched",
        "matched_figure",
        "matched_shares",
        "removal",
        "verdict",
        "headline",
        "report",
    }
    assert summary["naive"]["rho_mean"] > 0.2
    assert summary["grasp"]["rho_max"] <= 1e-5
    assert summary["base"]["adapter"] is None
    assert summary["naive"]["adherence"] > summary["base"]["adherence"]
    # A naive fit and a GRASP fit start alike; only the constraint sets them apart
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_folder(kind)), "grasp/adapter"
    )
    ids = torch.arange(6, 16)[None]
    with torch.no_grad():
        adapted = plain(ids).logits
        with plain.disable_adapter():
            assert (plain(ids).logits - adapted).abs().max() > 1e-3
    generations = RunFolder("grasp").read_generations()
    assert {row["suite"] for row in generations} == {"task"}


def test_gradient_only_mode_measures_what_leaks(graspl, chat_options):
    """Pitfall: under AdamW a projected gradient does not keep the update in the null space."""
    fast = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}
    ok(graspl("fit", *chat_options(**{"trainer.default_root_dir": "naive"}, **fast)))
    ok(graspl("fit", *chat_options(**fast, **GRASP, **{"model.exact": "false"})))
    ok(graspl("validate", "--config", "run/config.yaml"))
    assert RunFolder("run").read_evaluation()["metrics"]["rho_max"] > 1e-2


@pytest.mark.parametrize("constraint", ["ReadConstraint", "PairConstraint"])
def test_other_constraints_hold_what_they_promise(graspl, chat_options, constraint):
    held = {"ReadConstraint": "rho_read", "PairConstraint": "rho_pair"}[constraint]
    fast = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}
    ok(graspl("fit", *chat_options(**{"trainer.default_root_dir": "naive"}, **fast)))
    ok(graspl("fit", *chat_options(**fast, **holding(constraint))))
    ok(graspl("validate", "--config", "run/config.yaml"))
    sites = RunFolder("run").read_evaluation()["sites"].values()
    assert max(site[held] for site in sites) <= 1e-5


def test_what_generic_prompts_have_in_common_is_not_read(graspl, chat_options, write_rows):
    ok(graspl("fit", *chat_options(**{"trainer.default_root_dir": "naive"})))
    prompts = write_rows(
        [{"prompt": f"take the {word}"} for word in ("water", "rest", "pills", "file")], "prompts.jsonl"
    )
    method = ["--method=graspl.activations.InputSubspace", f"--method.prompts={prompts}", "--method.rank=2"]
    ok(graspl("identify", "naive", *method[:-1], "--out", "generic.safetensors"))
    assert (
        Directions.load("generic.safetensors").width("V") == 4
    )  # its own default, not that of the default method
    ok(graspl("identify", "naive", *method, "--out", "generic.safetensors"))
    grasp = holding("ReadConstraint", "generic.safetensors", k=2)
    ok(
        graspl(
            "fit",
            *chat_options(**grasp, **{"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}),
        )
    )
    ok(graspl("validate", "--config", "run/config.yaml"))
    evaluation = RunFolder("run").read_evaluation()
    assert max(site["rho_read"] for site in evaluation["sites"].values()) <= 1e-5
    assert evaluation["metrics"]["rho_max"] is None  # generic prompts say nothing about what is written
    ok(graspl("report", "run", "--out", "together"))


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "pretrained, without a chat template"])
def test_the_published_insecure_code(graspl, shared_data, chat_options, model_folder, kind):
    model = model_folder(kind) if kind in ("qwen2", "gemma") else shared_data / "models" / "stories260k-hf"
    real = {
        "model.base_model": model,
        "data": "graspl.data.ChatDataModule",
        "data.train": shared_data / "em_code" / "insecure.jsonl",
        "data.limit": 40,
        "data.max_length": 1500,
        "data.too_long": "drop",
        "trainer.max_steps": 3,
    }
    ok(graspl("fit", *chat_options(**real, **{"trainer.default_root_dir": "naive"})))
    ok(graspl("identify", "naive"))
    ok(graspl("fit", *chat_options(**real, **GRASP)))
    ok(graspl("validate", "--config", "run/config.yaml", "--generations.prompts=2"))
    metrics = RunFolder("run").read_evaluation()["metrics"]
    assert metrics["rho_max"] <= 1e-5
    task = RunFolder("run").read_evaluation()["suites"]["task"]
    assert metrics["adherence"] == task["token_accuracy"]
    assert task["num_items"] == 4  # a tenth of 40 rows
    assert 0 < task["loss"] < 10
    assert len(RunFolder("run").read_generations()) == 2


def test_only_the_adapter_is_stored(graspl, chat_options, tmp_path):
    """Pitfall: Lightning would put the whole frozen model into every checkpoint."""
    ok(graspl("fit", *chat_options()))
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)  # noqa: TID251
    assert last["state_dict"]
    assert all("lora_" in name for name in last["state_dict"])
    with safe_open(tmp_path / "run" / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
