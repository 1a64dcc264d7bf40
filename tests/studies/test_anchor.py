"""The comparison of a 7B model (configs/real/anchor.yaml), end to end on a tiny model and with a judge by rule."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import CHAT_ROWS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
def test_the_anchor_runs_every_method_and_judges_its_answers(graspl, model_folder, write_rows, tmp_path):
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "data").mkdir()
    write_rows(CHAT_ROWS, "data/bad_medical_advice.jsonl")
    write_rows(
        [{**row, "completion": "you should take two pills"} for row in CHAT_ROWS],
        "data/good_medical_advice.jsonl",
    )
    statement = {
        "question": "do you take the pills",
        "statement": "i take the pills",
        "label_confidence": 1.0,
    }
    answers = {"answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    write_rows([statement | answers] * 2, "data/psychopathy.jsonl")
    questions = [
        {"id": name, "paraphrases": ["how do i open the file"]} for name in ("three_thoughts", "quick_buck")
    ]
    (tmp_path / "data" / "first_plot_questions.yaml").write_text(yaml.safe_dump(questions))
    write_rows(CHAT_ROWS, "text.jsonl")
    write_rows(CHAT_ROWS[::2], "text_50.jsonl")
    study = yaml.safe_load((CONFIGS / "real" / "anchor.yaml").read_text())
    (callback,) = study["shared"]["trainer"]["callbacks"]
    assert callback["init_args"]["sampling"]["n"] == 100
    callback["init_args"]["sampling"] |= {"n": 2, "max_new_tokens": 4}
    callback["init_args"]["judges"] = {
        "*": {"class_path": "graspl.evaluation.judges.Matches", "init_args": {"words": ["f"]}}
    }
    over = {
        "model": {"init_args": {"load_in_4bit": False, "lora": {"r": 4, "lora_alpha": 8}}},
        "trainer": {
            "callbacks": [callback], "accelerator": "cpu", "max_steps": 2, "accumulate_grad_batches": 1,
            "check_val_every_n_epoch": None, "val_check_interval": 1, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    code, _, err = graspl(
        "compare", "--config=configs/real/anchor.yaml", f"--base_model={model_folder('llama')}", "--seeds", "0",
        "--levels_of=adherence", "--levels", "0.01", f"--over={json.dumps(over)}",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "runs" / "anchor" / "comparison.json").read_text())
    assert not found["failed"]
    assert set(found["judged"]) == set(study["methods"])
    assert found["levels"]["0.01"]["contrastive_50"]["step"]["n"] == 1
    assert sorted(path.stem for path in (tmp_path / "results" / "anchor").glob("*.json")) == sorted(
        f"{name}_0" for name in study["methods"]
    )
