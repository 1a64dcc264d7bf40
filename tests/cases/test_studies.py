"""Studies as the shipped configurations describe them, on a tiny model."""

import json

import pytest
import yaml
from conftest import REPOSITORY, WORDS

from graspl.cli import main

NEEDED = ("train", "text", "good", "harmful", "dev_good", "dev_harmful")  # What the head of study.yaml names


@pytest.mark.slow
def test_rivals_crash(folder_of, tmp_path, monkeypatch):
    """Trials on development suites are run; the suites were once built before they were written into a configuration."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    for name in NEEDED:
        rows = [{"prompt": f"how do i {each}", "completion": f"{name} {each}"} for each in WORDS]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    penalties = "model.init_args.penalties.0.init_args.weight"
    over = {
        "seeds": [0],
        "levels": [0.1],
        "levels_of": "adherence",
        "fast_methods": ["naive"],
        "reference": "kl",
        "tuning": {"trials": 2},
        "methods": {
            "naive": {"model": "configs/methods/naive.yaml"},
            "kl": {"model": "configs/methods/kl.yaml", "tune": {penalties: [0.1, 1.0]}},
        },
        "over": {"trainer": {"max_steps": 2, "val_check_interval": 1, "accelerator": "cpu", "devices": 1}},
    }
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(over))
    options = ["--config", "configs/study.yaml", "--config", "over.yaml", "--base_model", folder_of("llama")]
    assert main(["compare", *options]) == 0
    tuned = json.loads((tmp_path / "runs/study/tuning.json").read_text())
    assert "kl" in str(tuned)
    [fit] = (tmp_path / "runs/study/kl").glob("seed_0/config.yaml")
    assert (
        yaml.safe_load(fit.read_text())["data"]["init_args"]["suites"]["unrelated"]["init_args"]["good"]
        == "good.jsonl"
    )
