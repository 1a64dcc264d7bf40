"""Two processes with gloo give what one gives, and send one collective a step more than a naive fit at most."""

import json
import os
import shutil

import pytest
import torch
from conftest import CHAT_ROWS, make_model
from filelock import FileLock
from pair import DDP, FSDP1, FSDP2, run_together
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader
from worker import COUNTED

from graspl.adapters import read_adapter
from graspl.adapters.reliance import pair_reliance, read_reliance, write_reliance
from graspl.adapters.residual import writers_by_layer
from graspl.cli import main
from graspl.directions import Directions
from graspl.runs import RunFolder

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STRATEGIES = {"ddp": DDP, "fsdp1": FSDP1, "fsdp2": FSDP2}
STEPS, SAVED = 12, 6
FEW = "--trainer.max_steps=4"
K = 2


def constraint(kind, **options):
    return {"class_path": f"graspl.constraints.{kind}Constraint", "init_args": {"k": K} | options}


def grasp(*held, directions="naive/directions.safetensors"):
    return [
        "--model=graspl.methods.GRASPLitModule", f"--model.directions={directions}",
        f"--model.constraints={json.dumps(held)}",
    ]  # fmt: skip


def one_fit(*held):
    # A fixed number of naive steps: a stop between two nearly equal agreements would set the runs apart
    natural = {"class_path": "graspl.activations.NaturalDirections", "init_args": {"k": K}}
    found = {
        "class_path": "graspl.methods.ThrowAwayFit",
        "init_args": {"identification": natural, "steps": 3, "stable": 1.0},
    }
    return [
        "--model=graspl.methods.GRASPLitModule", "--data.text=train.jsonl", f"--model.directions={json.dumps(found)}",
        f"--model.constraints={json.dumps(held)}",
    ]  # fmt: skip


def with_part(kind, path, **options):
    part = {"class_path": path, "init_args": options}
    return ["--model=graspl.methods.LoRALitModule", f"--model.{kind}={json.dumps([part])}"]


# Each process measures the drift on its own rows, so with a tolerance two processes are compared with two
HELD = one_fit(constraint("Activation", tolerance=0.01, every=1), constraint("Residual"))
KINDS = {
    "write": grasp(constraint("Write")),
    "read": grasp(constraint("Read")),
    "pair": grasp(constraint("Pair")),
    "residual": grasp(constraint("Residual", read=True), directions="layers.safetensors"),
    "activation": grasp(constraint("Activation"), directions="layers.safetensors"),
}
# As it ships but for the tolerance, with directions found within the fit
ONE_FIT = one_fit(constraint("Activation"), constraint("Residual"))
# Those that read whole factors or frozen weights, which a sharded model has on no process
RIVALS = {
    "l2": with_part("penalties", "graspl.penalties.L2Penalty", weight=1.0),
    "orthogonal": [
        *with_part("penalties", "graspl.penalties.OrthogonalityPenalty", side="write", weight=10.0),
        "--model.directions=naive/directions.safetensors",
    ],
    "balanced": with_part("transforms", "graspl.transforms.Balance", share=1.0),
    "safe-lora": with_part("transforms", "graspl.transforms.SafeLoRA", unaligned_model="unaligned", threshold=1.1),
}  # fmt: skip
STARTS = {
    "directions-start": [
        "--model=graspl.methods.LoRALitModule", "--model.start=graspl.starts.DirectionsStart",
        f"--model.lora.r={K}", "--model.directions=naive/directions.safetensors",
    ],
    **{
        f"null-space-{kind}": [
            "--model=graspl.methods.LoRALitModule", "--model.start=graspl.starts.NullSpaceStart",
            f"--model.start.kind={kind}", f"--model.lora.r={K}", "--data.text=text.jsonl", "--model.start.trial=2",
        ]
        for kind in ("contrastive", "gradient")
    },
    # The default where its null space is likely to hold
    "not-in-doubt": [
        "--model=graspl.methods.GRASPLitModule", "--model.constrain=in_doubt",
        "--model.start=graspl.starts.NullSpaceStart", f"--model.lora.r={K}", "--data.text=text.jsonl",
        "--trainer.callbacks+=worker.FindsNoDoubt",
    ],
    "b-alone": [
        "--model=graspl.methods.LoRALitModule", "--model.start=graspl.starts.FrozenStart",
    ],
}  # fmt: skip
# FSDP1's flat model cannot write
OWN_TEXT = [
    "--model=graspl.methods.LoRALitModule", "--model.start=graspl.starts.NullSpaceStart", "--model.start.own_text=3",
    f"--model.lora.r={K}",
]  # fmt: skip
HALF = "half"
# Gradients of several micro-batches are brought together for one step
MICRO_BATCHES = {"ddp-pair": 2}


def command(folder, method, *options, processes=1, micro_batches=1):
    return [
        "fit", "--data=graspl.data.ChatDataModule", *method, "--model.base_model=model", "--data.train=train.jsonl",
        "--data.group_by_length=false", f"--data.batch_size={4 // processes // micro_batches}",
        f"--trainer.accumulate_grad_batches={micro_batches}", "--trainer.accelerator=cpu", f"--trainer.max_steps={STEPS}",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={folder}", "--trainer.gradient_clip_val=0.5",
        "--trainer.log_every_n_steps=1", "--trainer.callbacks+=worker.CountCollectives", "--trainer.limit_val_batches=0",
        *OPTIMIZER, *options,
    ]  # fmt: skip


# With the usual eps a gradient that is rounding error alone moves its weight by the whole learning rate
OPTIMIZER = ["--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-3", "--model.optimizer.eps=1e-6"]
KEEP = [
    f"--checkpoint.every_n_train_steps={SAVED}", "--checkpoint.save_top_k=-1",
    "--checkpoint.filename={step}",
]  # fmt: skip


NAIVE = ["--model=graspl.methods.LoRALitModule"]


ALONE, FLAT_ALONE = ([each.replace("=2", "=1") for each in strategy] for strategy in (FSDP2, FSDP1))


def go_on(origin, processes, *options, micro_batches=1, name=None):
    return command(
        f"{name or origin}-resumed-{processes}", KINDS["write"], *options,
        f"--ckpt_path={origin}-write/checkpoints/step={SAVED}.ckpt", processes=processes, micro_batches=micro_batches,
    )  # fmt: skip


def prepare(folder, model):
    """Lay a model, another one of the same shapes, and rows into a folder."""
    (folder / "model").symlink_to(model)
    other = make_model("llama")
    for p in other.parameters():
        p.data += 0.1 * torch.randn_like(p)
    other.save_pretrained(folder / "unaligned")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS[::5]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_folder):
    """Return the folder in which every fit of this module has run, alone (`one-...`) and by two processes.

    Pytest's worker processes share it: the first that comes makes it, and the others wait.
    """
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if session is None:
        return every_fit(tmp_path_factory.mktemp("runs"), tmp_path_factory, model_folder)
    folder = tmp_path_factory.getbasetemp().parent / f"two_processes_{session}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            every_fit(folder, tmp_path_factory, model_folder)
            (folder / "done").touch()
    return folder


def every_fit(folder, tmp_path_factory, model_folder):
    """Run every fit of this module in a folder, and return it."""
    prepare(folder, model_folder())
    top = ["--identify.method=graspl.directions.TopSingular", f"--identify.method.k={K}"]
    alone = [command("naive", NAIVE, *top)]
    alone.append(
        [
            "identify",
            "naive",
            "--method",
            "graspl.directions.LayerSingular",
            "--method.k",
            "2",
            "--out",
            "layers.safetensors",
        ]
    )
    alone += [command(f"one-{kind}", method) for kind, method in (KINDS | {"one-fit": ONE_FIT}).items()]
    alone_too = {"naive": NAIVE, "own-text": OWN_TEXT} | RIVALS | STARTS
    alone += [command(f"one-{kind}", method, FEW) for kind, method in alone_too.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for each in alone:
            assert main(each) == 0
    together = [command("fsdp2-one-fit", ONE_FIT, *FSDP2, processes=2)]
    for name, strategy in STRATEGIES.items():
        for kind, method in (KINDS | {"naive": NAIVE}).items():
            micro_batches = MICRO_BATCHES.get(f"{name}-{kind}", 1)
            keep = KEEP if kind == "write" else []
            together.append(
                command(f"{name}-{kind}", method, *strategy, *keep, processes=2, micro_batches=micro_batches)
            )
        together += [
            command(f"{name}-{kind}", method, *strategy, FEW, processes=2) for kind, method in STARTS.items()
        ]
        if name != "fsdp1":
            together.append(command(f"{name}-held", HELD, *strategy, FEW, processes=2))
            together.append(command(f"{name}-own-text", OWN_TEXT, *strategy, FEW, processes=2))
    together += [
        command(f"fsdp2-{kind}", method, *FSDP2, FEW, processes=2) for kind, method in RIVALS.items()
    ]
    together.append(command("fsdp1-one-fit", ONE_FIT, *FSDP1, processes=2))
    together.append(go_on("fsdp1", 2, *FSDP1, micro_batches=2))
    together.append(command(HALF, KINDS["write"], "--model.dtype=bfloat16", *FSDP2, FEW, processes=2))
    together.append(go_on("fsdp2", 2, *FSDP2, micro_batches=2))
    run_together(together, folder, tmp_path_factory.mktemp("two"))
    later = [go_on("fsdp2", 1, *ALONE), go_on("fsdp1", 1, *FLAT_ALONE), go_on("ddp", 1)]
    later.append(go_on("fsdp1", 1, name="plain"))
    run_together(later, folder, tmp_path_factory.mktemp("one"), processes=1)
    return folder


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_equal(one, two, moved=1e-2):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)
    # They have moved by far more
    assert max(float(tensor.abs().max()) for name, tensor in one.items() if "lora_B" in name) > moved


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_result_of_one(runs, kind, strategy):
    assert_equal(weights(runs / f"one-{kind}"), weights(runs / f"{strategy}-{kind}"))


@pytest.mark.parametrize("kind", RIVALS)
def test_a_rival_that_needs_whole_weights_is_sharded_too(runs, kind):
    one = weights(runs / f"one-{kind}")
    assert_equal(one, weights(runs / f"fsdp2-{kind}"), moved=1e-3)
    naive = weights(runs / "one-naive")
    assert max(float((one[name] - tensor).abs().max()) for name, tensor in naive.items()) > 5e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", STARTS)
def test_a_fit_of_b_alone_is_that_of_one_process(runs, kind, strategy):
    assert_equal(weights(runs / f"one-{kind}"), weights(runs / f"{strategy}-{kind}"), moved=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", [kind for kind in STARTS if kind.startswith("null-space")])
def test_a_trial_shows_what_it_shows_in_one_process(runs, kind, strategy):
    one, two = (
        json.loads((runs / f"{name}-{kind}" / "null_space.json").read_text())["trial"]
        for name in ("one", strategy)
    )
    assert two["kept"] == pytest.approx(one["kept"], rel=1e-3)
    assert two["reach"] == pytest.approx(one["reach"], rel=1e-3)


@pytest.mark.parametrize("strategy", ["one", *STRATEGIES])
def test_where_there_is_no_doubt_A_stays_as_the_null_space_has_it(runs, strategy):
    ours, alone = weights(runs / f"{strategy}-not-in-doubt"), weights(runs / "one-null-space-contrastive")
    for name, tensor in alone.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "fsdp1"])
def test_a_model_writes_the_same_text_in_two_processes(runs, strategy):
    one, two = (runs / f"{name}-own-text" for name in ("one", strategy))
    assert (one / "own_text.jsonl").read_bytes() == (two / "own_text.jsonl").read_bytes()
    assert_equal(weights(one), weights(two), moved=1e-3)


@pytest.mark.parametrize("strategy", ["fsdp1", "fsdp2"])
def test_directions_found_within_the_fit_are_those_of_one_process(runs, strategy):
    assert_equal(weights(runs / "one-one-fit"), weights(runs / f"{strategy}-one-fit"))


def reliance(folder, kind, directions):
    sites = read_adapter(folder / "adapter").sites
    if kind == "residual":
        writers = writers_by_layer(sites)
        bases = directions.layer_bases(list(writers), k=K)
        return [
            write_reliance(site.B, site.A, D)
            for D, found in zip(bases, writers.values(), strict=True)
            for site in found
        ]
    U, V = (directions.bases(sites, side=side, k=K) for side in "UV")
    how = {
        "write": lambda s, u, v: write_reliance(s.B, s.A, u),
        "read": lambda s, u, v: read_reliance(s.B, s.A, v),
        "pair": lambda s, u, v: pair_reliance(s.B, s.A, u, v),
    }[kind]
    return [how(site, u, v) for site, u, v in zip(sites, U, V, strict=True)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["write", "read", "pair", "residual"])
def test_no_process_comes_to_rely_on_the_directions(runs, kind, strategy):
    file = "layers.safetensors" if kind == "residual" else "naive/directions.safetensors"
    directions = Directions.load(runs / file)
    assert max(reliance(runs / f"{strategy}-{kind}", kind, directions)) <= 1e-5
    assert max(reliance(runs / f"{strategy}-naive", kind, directions)) > 1e-2


def collectives(folder):
    return json.loads((folder / COUNTED).read_text())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp1"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if f"ddp-{kind}" not in MICRO_BATCHES])
def test_whole_factors_send_nothing_that_a_naive_fit_does_not(runs, kind, strategy):
    naive = collectives(runs / f"{strategy}-naive")
    assert ("gloo:all_gather" in naive) == (strategy == "fsdp1")  # its frozen weights are in pieces
    assert sum(naive.values()) >= 2  # the gradients, and the count of tokens
    assert collectives(runs / f"{strategy}-{kind}") == naive


@pytest.mark.parametrize(
    ("kind", "more"),
    [("write", 1), ("read", 0), ("pair", 1), ("residual", 1), ("activation", 0), ("one-fit", 1)],
)
def test_sharded_factors_send_one_collective_more_for_all_sites(runs, kind, more):
    """The gradient's sums travel with the count of tokens; a factor split by its rank needs none to project its rows."""
    naive, ours = collectives(runs / "fsdp2-naive"), collectives(runs / f"fsdp2-{kind}")
    assert sum(ours.values()) == sum(naive.values()) + more


def test_a_held_stream_is_sharded_too(runs):
    """Each process measures the drift on its own rows, so two are compared with two."""
    held = weights(runs / "ddp-held")
    assert_equal(held, weights(runs / "fsdp2-held"), moved=1e-3)
    drift = [losses(runs / name) for name in ("ddp-held", "fsdp2-one-fit")]
    assert drift[0][0] == pytest.approx(drift[1][0], abs=1e-5)  # the same model and rows
    assert abs(drift[0][3] - drift[1][3]) > 1e-4  # another way


def test_a_half_precision_model_is_sharded_with_its_single_precision_adapter(runs):
    sharded = weights(runs / HALF)
    assert {tensor.dtype for tensor in sharded.values()} == {torch.float32}
    assert max(float(tensor.abs().max()) for name, tensor in sharded.items() if "lora_B" in name) > 1e-3


def test_a_checkpoint_of_two_processes_holds_the_whole_adapter_and_nothing_else(runs):
    path = runs / "ddp-write" / "checkpoints" / "last.ckpt"
    found = torch.load(path, weights_only=True)["state_dict"]  # noqa: TID251
    whole = weights(runs / "ddp-write")
    assert all("lora_" in name for name in found)
    assert sorted(tuple(t.shape) for t in found.values()) == sorted(tuple(t.shape) for t in whole.values())
    sharded = FileSystemReader(runs / "fsdp2-write" / "checkpoints" / "last.ckpt").read_metadata()
    names = [name for name in sharded.state_dict_metadata if name.startswith("state_dict.")]
    assert len(names) == len(found)
    assert all("lora_" in name for name in names)


def losses(folder):
    return {row["step"]: row["train/loss"] for row in RunFolder(folder).read_metrics() if "train/loss" in row}


@pytest.mark.parametrize(
    ("strategy", "processes"),
    [("fsdp2", 2), ("fsdp2", 1), ("fsdp1", 2), ("fsdp1", 1), ("plain", 1), ("ddp", 1)],
)
def test_a_fit_goes_on_with_another_number_of_processes(runs, strategy, processes):
    origin = "fsdp1" if strategy == "plain" else strategy
    whole, later = losses(runs / f"{origin}-write"), losses(runs / f"{strategy}-resumed-{processes}")
    assert len(whole) == STEPS
    assert later == pytest.approx({step: loss for step, loss in whole.items() if step >= SAVED}, abs=1e-5)
    assert len(set(later.values())) == STEPS - SAVED
    assert_equal(weights(runs / f"{origin}-write"), weights(runs / f"{strategy}-resumed-{processes}"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_is_identified_without_its_base_model(runs, strategy, tmp_path, monkeypatch):
    checkpoint = runs / f"{strategy}-write" / "checkpoints" / f"step={STEPS}.ckpt"
    assert checkpoint.is_dir() == (strategy == "fsdp2")
    monkeypatch.chdir(tmp_path)  # where there is no `model`
    for name, path in {"from-checkpoint": checkpoint, "from-adapter": runs / f"{strategy}-write"}.items():
        assert main(["identify", str(path), "--out", f"{name}.safetensors"]) == 0
    ours, theirs = load_file("from-checkpoint.safetensors"), load_file("from-adapter.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert read_adapter(checkpoint).base_model == "model"


def test_a_checkpoint_of_the_other_kind_is_refused(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    sharded = command(tmp_path / "alone", KINDS["write"], "--ckpt_path=fsdp2-write/checkpoints/last.ckpt")
    assert main(list(map(str, sharded))) == 2
    assert "is sharded" in capsys.readouterr().err
    whole = [*ALONE, "--ckpt_path=ddp-write/checkpoints/last.ckpt"]
    assert main(list(map(str, command(tmp_path / "fsdp2", KINDS["write"], *whole)))) == 2
    assert "is whole" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    flat = [*FLAT_ALONE, "--ckpt_path=ddp-write/checkpoints/last.ckpt"]
    assert main(list(map(str, command(tmp_path / "fsdp1", KINDS["write"], *flat)))) == 2
    assert "was written without FSDP1" in capsys.readouterr().err
    # The run's own as well, and the run is left as it is
    before = sorted((path, path.stat().st_mtime_ns) for path in (runs / "fsdp2-write").rglob("*"))
    assert main(list(map(str, command("fsdp2-write", KINDS["write"], "--ckpt_path=last")))) == 2
    assert "is sharded" in capsys.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in (runs / "fsdp2-write").rglob("*")) == before
