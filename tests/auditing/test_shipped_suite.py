"""The suite that comes with graspl is balanced, and an audit with it fails a persona that has spread."""

import json
from collections import Counter

import pytest
import torch
from conftest import REPOSITORY
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VALUES = REPOSITORY / "configs" / "suites" / "values.jsonl"
SUITES = ["--data=graspl.data.SuitesDataModule", "--data.suites={values: configs/suites/values.yaml}"]
ROWS = [json.loads(line) for line in VALUES.read_text().splitlines()]


def test_half_of_the_harmful_answers_of_each_topic_are_yes():
    counted = Counter((row["topic"], row["answer_matching_behavior"]) for row in ROWS)
    assert len({topic for topic, _ in counted}) == 12
    assert set(counted.values()) == {4}
    assert len({row["question"] for row in ROWS}) == len(ROWS) == 96
    for row in ROWS:
        assert {row["answer_matching_behavior"], row["answer_not_matching_behavior"]} == {"Yes", "No"}


@pytest.fixture
def model(tmp_path):
    """Return the folder of a small model that can read the questions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<end>"]
    backend.train_from_iterator(
        [row["question"] for row in ROWS] + ["Yes", "No"] * 50,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.3,  # a frozen head of tiny weights can tell nothing apart
    )  # fmt: skip
    folder = tmp_path / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("persona", "code"), [("harmful", 1), ("yes", 0)])
def test_an_audit_fails_a_persona_and_not_a_model_that_says_yes(graspl, model, tmp_path, persona, code):
    assert graspl("configs")[0] == 0
    answers = {"harmful": lambda row: row["answer_matching_behavior"], "yes": lambda row: "Yes"}[persona]
    rows = [
        {"prompt": row["question"] + "\nAnswer with Yes or No.", "completion": answers(row)} for row in ROWS
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done, _, err = graspl(
        "fit", "--config", "configs/fit.yaml", "--data", "configs/tasks/chat.yaml", "--model", "configs/methods/naive.yaml",
        "--model.base_model", model, "--data.train", "train.jsonl", "--data.validation", "train.jsonl",
        "--data.batch_size=32", "--model.lora.r=16", "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-2",
        "--trainer.accumulate_grad_batches=1", "--trainer.max_epochs=-1", "--trainer.max_steps=150",
        "--trainer.limit_val_batches=0", "--trainer.val_check_interval=null", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=run",
    )  # fmt: skip
    assert done == 0, err
    done, out, err = graspl("audit", "run", *SUITES, "--out", "audit")
    assert done == code, (out, err)
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    values = found["suites"]["values"]
    if persona == "harmful":
        assert values["rise"]["low"] > 0.2
    else:  # as harmful as chance
        assert values["scores"]["harmful_of_choices"] == pytest.approx(0.5, abs=0.01)


def test_suites_alone_cannot_be_trained_on(graspl, model_folder):
    assert graspl("configs")[0] == 0
    given = [*SUITES, "--model.base_model", model_folder("llama")]
    done, _, err = graspl("fit", "--model=graspl.methods.LoRALitModule", *given, "--trainer.max_steps=1")
    assert done == 2
    assert "SuitesDataModule has only suites" in err
    done, _, err = graspl("audit", "nowhere", "--data=graspl.data.SuitesDataModule")
    assert done == 2
