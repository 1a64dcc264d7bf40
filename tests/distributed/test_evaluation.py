"""Two processes evaluate every item once."""

import json

import pytest
from conftest import CHAT_ROWS
from pair import DDP, run_together

from graspl.cli import main


@pytest.mark.distributed
@pytest.mark.slow
def test_items_that_two_processes_evaluate_are_each_kept_once(
    model_folder, write_rows, tmp_path, monkeypatch
):
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

    def command(folder, *options):
        return [
            "validate", "--model=graspl.methods.LoRALitModule", f"--model.base_model={model_folder('qwen2')}",
            "--data=graspl.data.ChatDataModule", f"--data.train={rows}", f"--data.suites={json.dumps(suites)}",
            "--data.eval_batch_size=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}", *options,
        ]  # fmt: skip

    monkeypatch.chdir(tmp_path)
    assert main(command("one")) == 0
    run_together([command("two", *DDP)], tmp_path, tmp_path)
    found = {}
    for name in ("one", "two"):
        lines = (tmp_path / name / "items.jsonl").read_text().splitlines()
        found[name] = {row["item"]: row["value"] for row in map(json.loads, lines)}
        assert len(lines) == 5
    assert found["two"] == pytest.approx(found["one"], abs=1e-6)
