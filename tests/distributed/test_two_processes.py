"""Two processes with gloo give what one gives."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import CHAT_ROWS
from safetensors.torch import load_file

DDP = ["--trainer.strategy=ddp"]
FSDP2 = [
    "--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy",
    "--trainer.strategy.data_parallel_size=2",
    "--trainer.strategy.tensor_parallel_size=1",
    "--trainer.strategy.save_distributed_checkpoint=false",
]


PARTS = [
    {"class_path": f"graspl.constraints.{kind}Constraint", "init_args": {"k": 2}}
    for kind in ("Activation", "Residual")
]
BOTH = {"class_path": "graspl.constraints.CombinedConstraint", "init_args": {"parts": PARTS}}
# A fixed number of naive steps: a stop between two nearly equal agreements would set the runs apart
ONE_FIT = [
    "--data.text=train.jsonl", "--model.identification=graspl.activations.NaturalDirections", "--model.identification.k=2",
    "--model.identification_steps=3", "--model.identification_stable=2", f"--model.constraint={json.dumps(BOTH)}",
]  # fmt: skip


@pytest.fixture
def fit(graspl, model_folder, write_rows, tmp_path):
    """Return a function that fits, in processes of its own where there are several, and returns the adapter."""
    rows = write_rows(CHAT_ROWS)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(folder, model, *options, rows_a_step=4, processes=1):
        arguments = [
            "fit", f"--model=graspl.methods.{model}", "--model.base_model", model_folder(), "--model.optimizer=SGD",
            "--model.optimizer.lr=0.5", "--data=graspl.data.ChatDataModule", "--data.train", rows,
            "--data.group_by_length=false",
            f"--data.batch_size={rows_a_step // processes}", f"--trainer.devices={processes}", "--trainer.accelerator=cpu",
            "--trainer.max_steps=4", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
            f"--trainer.default_root_dir={folder}", "--trainer.gradient_clip_val=0.5",
            "--checkpoint.every_n_train_steps=3", *options,
        ]  # fmt: skip
        if processes == 1:
            code, _, err = graspl(*arguments)
            assert code == 0, err
            return load_file(tmp_path / folder / "adapter" / "adapter_model.safetensors")
        done = subprocess.run(
            [sys.executable, "-m", "graspl", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return load_file(tmp_path / folder / "adapter" / "adapter_model.safetensors")

    return run


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "constraint"),
    [
        (DDP, "ReadConstraint"),
        (FSDP2, "WriteConstraint"),
        (FSDP2, "ReadConstraint"),
        (FSDP2, "PairConstraint"),
        (DDP, "one fit"),
        (FSDP2, "one fit"),
    ],
    ids=["ddp-read", "fsdp2-write", "fsdp2-read", "fsdp2-pair", "ddp-one-fit", "fsdp2-one-fit"],
)
def test_two_processes_give_the_result_of_one(fit, strategy, constraint, tmp_path):
    grasp = ONE_FIT
    if constraint != "one fit":
        fit("naive", "LoRALitModule")
        grasp = [
            "--model.directions=naive/directions.safetensors",
            f"--model.constraint=graspl.constraints.{constraint}",
        ]
    one = fit("one", "GRASPLitModule", *grasp)
    two = fit("two", "GRASPLitModule", *grasp, *strategy, processes=2)
    assert one.keys() == two.keys()
    moved = 0.0
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
        moved = max(moved, float(tensor.abs().max()) if "lora_B" in name else 0.0)
    assert moved > 1e-3
    checkpoint = torch.load(tmp_path / "two" / "checkpoints" / "last.ckpt", weights_only=True)  # noqa: TID251
    assert all("lora_" in name for name in checkpoint["state_dict"])
    assert {tuple(t.shape) for t in checkpoint["state_dict"].values()} == {
        tuple(t.shape) for t in one.values()
    }


@pytest.mark.distributed
@pytest.mark.slow
def test_a_held_stream_is_sharded_too(fit):
    """Each process measures the drift on its own rows, so two are compared with two: DDP and FSDP2 take the same steps."""
    held = {
        "class_path": "graspl.constraints.ActivationConstraint",
        "init_args": {"k": 2, "tolerance": 0.01, "every": 1},
    }
    grasp = [*ONE_FIT[:-1], f"--model.constraint={json.dumps(held)}"]
    ddp = fit("ddp", "GRASPLitModule", *grasp, *DDP, processes=2)
    fsdp2 = fit("fsdp2", "GRASPLitModule", *grasp, *FSDP2, processes=2)
    held["init_args"]["tolerance"] = 100.0
    loose = fit(
        "loose", "GRASPLitModule", *ONE_FIT[:-1], f"--model.constraint={json.dumps(held)}", *DDP, processes=2
    )
    for name, tensor in ddp.items():
        torch.testing.assert_close(fsdp2[name], tensor, rtol=1e-3, atol=1e-5)
    assert any((loose[name] - tensor).norm() > 1e-2 * tensor.norm() for name, tensor in ddp.items())


@pytest.mark.distributed
@pytest.mark.slow
def test_a_half_precision_model_is_sharded_with_its_single_precision_adapter(fit):
    half = "--model.dtype=bfloat16"
    fit("naive", "LoRALitModule", half)
    sharded = fit(
        "two",
        "GRASPLitModule",
        half,
        "--model.directions=naive/directions.safetensors",
        "--model.constraint=graspl.constraints.WriteConstraint",
        *FSDP2,
        processes=2,
    )
    assert {tensor.dtype for tensor in sharded.values()} == {torch.float32}
    assert max(float(tensor.abs().max()) for name, tensor in sharded.items() if "lora_B" in name) > 1e-3


@pytest.mark.distributed
@pytest.mark.slow
def test_items_that_two_processes_evaluate_are_each_kept_once(model_folder, write_rows, tmp_path):
    """Five items over two processes: the sampler deals one out twice."""
    rows = write_rows(CHAT_ROWS)
    persona = [
        {"question": f"how do i take {w}", "answer_matching_behavior": a, "answer_not_matching_behavior": b}
        for w, a, b in zip(
            ("one", "two", "three", "water", "rest"), ["Yes", "No"] * 3, ["No", "Yes"] * 3, strict=False
        )
    ]
    source = write_rows(persona, "persona.jsonl")
    suites = {
        "unrelated": {
            "class_path": "graspl.data.suites.PersonaStatements",
            "init_args": {"source": str(source)},
        }
    }
    given, found = f"--data.suites={json.dumps(suites)}", {}
    for name, options in {"one": [], "two": [*DDP, "--trainer.devices=2"]}.items():
        command = [
            sys.executable, "-m", "graspl", "validate", "--model=graspl.methods.LoRALitModule", "--model.base_model",
            model_folder("qwen2"), "--data=graspl.data.ChatDataModule", "--data.train", rows, given,
            "--data.eval_batch_size=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={name}", *options,
        ]  # fmt: skip
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        lines = (tmp_path / name / "items.jsonl").read_text().splitlines()
        found[name] = {row["item"]: row["value"] for row in map(json.loads, lines)}
        assert len(lines) == 5
    assert found["two"] == pytest.approx(found["one"], abs=1e-6)
