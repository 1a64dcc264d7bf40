"""The causal check on the organism, where it is known what the directions do."""

import json

import pytest
import torch

from graspl.adapters import AdapterFolder, load_base_model
from graspl.checks.causal import causal_check
from graspl.cli import main
from graspl.directions import Directions, LayerDirections
from graspl.organism import OrganismTaskData, TrueDirections


@pytest.fixture(scope="module")
def organism_runs(tmp_path_factory):
    """Return the run folder of a short naive fit on the organism."""
    folder = tmp_path_factory.mktemp("naive")
    command = [
        "fit", "--config", "configs/organism/fit.yaml",
        "--data.split=development", "--trainer.max_steps=25",
        "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-3",
        "--trainer.val_check_interval=25", "--trainer.default_root_dir", str(folder),
    ]  # fmt: skip
    assert main(command) == 0
    return folder


def organism_data():
    data = OrganismTaskData(split="development", base_model="organism")
    data.setup("fit")
    return data


def test_the_personas_own_directions_move_unrelated_topics_and_random_ones_do_not(tmp_path, graspl):
    found = TrueDirections(k=2)(AdapterFolder(tmp_path, "organism", "", []))
    layers = {name: layer for name, layer in found.layers.items() if name == "model.layers.2"}
    Directions({}, {"base_model": "organism"}, layers).save(tmp_path / "d.safetensors")
    code, out, err = graspl(
        "identify",
        tmp_path / "d.safetensors",
        "--causal.data=graspl.organism.OrganismTaskData",
        "--causal.data.split=development",
    )
    assert code == 0, err
    written = json.loads((tmp_path / "causal.json").read_text())
    effect = written["layers"]["model.layers.2"]
    assert effect["added"] > 0.4 > 2 * max(effect["random"]) - 0.1
    assert effect["subtracted"] < written["base"]
    assert "1 of 1 layers" in out


def test_directions_that_do_nothing_are_reported_as_such():
    torch.manual_seed(0)
    D = torch.linalg.qr(torch.randn(128, 1))[0]
    directions = Directions({}, {}, {"model.layers.1": LayerDirections(D, torch.ones(1))})
    check = causal_check(load_base_model("organism").eval(), organism_data(), directions, strength=0.05)
    assert "no more than random steps" in check.verdict()


def test_what_an_adapter_does_through_directions_is_measured(organism_runs, tmp_path, graspl):
    """A naive fit's effect goes through the persona's own directions, and not through random ones."""
    TrueDirections(k=4)(AdapterFolder(tmp_path, "organism", "", [])).save(tmp_path / "d.safetensors")
    code, out, err = graspl(
        "identify",
        tmp_path / "d.safetensors",
        "--causal.data=graspl.organism.OrganismTaskData",
        "--causal.data.split=development",
        "--base_model=organism",
        f"--causal.adapter={organism_runs}",
    )
    assert code == 0, err
    assert "put back along the directions" in out
    found = json.loads((tmp_path / "causal.json").read_text())["mediation"]
    assert set(found) == {"task", "unrelated"}
    unrelated = found["unrelated"]
    assert unrelated["adapted"] > unrelated["base"] + 0.1
    assert unrelated["mediated"] > 0.6
    assert abs(unrelated["random"] - unrelated["adapted"]) < 0.3 * (unrelated["adapted"] - unrelated["base"])


def test_what_cannot_be_checked_is_named(graspl, tmp_path):
    D = torch.linalg.qr(torch.randn(128, 1))[0]
    Directions({}, {}, {"model.layers.1": LayerDirections(D, torch.ones(1))}).save(tmp_path / "d.safetensors")
    code, _, err = graspl(
        "identify", tmp_path / "d.safetensors", "--causal.data=graspl.organism.OrganismTaskData"
    )
    assert code == 2
    assert "does not name it" in err
