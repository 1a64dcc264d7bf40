"""The token that ends an answer is the same in the loss, in generation and for a judge."""

import logging

import pytest
import torch
from conftest import SPECIAL, WORDS, make_model, make_tokenizer

from graspl.data import tokenize
from graspl.data.turns import end_of_answer
from graspl.errors import GrasplError
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.evaluation.judges import LocalBackend

TURNS = [
    {"role": "user", "content": "take water"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "take pills"},
    {"role": "assistant", "content": "no"},
]
OPEN = "{% if add_generation_prompt %}"
# As ChatML has it: a mark of its own behind every turn, which is not the tokenizer's end of text
CHATML = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
    + OPEN + "<|im_start|> assistant {% endif %}"
)  # fmt: skip
# As GLM-4 has it: the mark that opens the next turn ends this one
GLM = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
    + OPEN
    + "<|assistant|> {% endif %}"
)
BARE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}" + OPEN + "assistant {% endif %}"
MARKS = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]


def tokenizer_of(template):
    tokenizer = make_tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return tokenizer


@pytest.fixture
def writer():
    """Return a function: words -> a model that writes them whatever it reads, then `yes` for ever."""

    def make(tokenizer, *said):
        model = make_model("llama", vocab_size=len(tokenizer)).eval()
        ids = [tokenizer.convert_tokens_to_ids(each) for each in said]
        forever = tokenizer.convert_tokens_to_ids("yes")
        start = {}

        def write(_module, _inputs, logits):
            length = start.setdefault("at", 0)
            start["at"] += 1
            chosen = ids[length] if length < len(ids) else forever
            forced = torch.full_like(logits, -1e9)
            forced[..., chosen] = 0.0
            return forced

        model.get_output_embeddings().register_forward_hook(write)
        return model

    return make


@pytest.mark.parametrize(
    ("template", "trained"),
    [
        (CHATML, ["yes", "<|im_end|>", "no", "<|im_end|>"]),
        (GLM, ["yes", "<|user|>", "no", "<|user|>"]),
        (BARE, ["yes", "no", "<end>"]),
    ],
    ids=["generation_stop", "no_end_of_turn", "eos"],
)
def test_the_end_is_trained_and_stops_generation(template, trained, writer):
    tokenizer, end = tokenizer_of(template), trained[-1]
    labels = [each for each in tokenize(tokenizer, TURNS).labels if each != -100]
    assert tokenizer.convert_ids_to_tokens(labels) == trained
    assert tokenizer.convert_ids_to_tokens(end_of_answer(tokenizer).id) == end
    model = writer(tokenizer, "take", "water", end)
    [[answer]] = TransformersGenerator(model, tokenizer).write(
        ["take"], Sampling(temperature=0, max_new_tokens=8)
    )
    assert answer == "take water"


def test_generation_stop_is_not_that_of_the_model_folder(writer):
    """Neither its end, nor its penalties, nor its length are used; afterwards they are as before."""
    tokenizer = tokenizer_of(CHATML)
    model = writer(tokenizer, "take", "water", "water", "rest", "<|im_end|>")
    own = model.generation_config
    own.update(
        eos_token_id=tokenizer.convert_tokens_to_ids("water"), repetition_penalty=5.0, no_repeat_ngram_size=1
    )
    [[answer]] = TransformersGenerator(model, tokenizer).write(
        ["take"], Sampling(temperature=0, max_new_tokens=8)
    )
    assert answer == "take water water rest"
    assert model.generation_config is own


def test_generation_stop_hides_nothing_before_the_end(writer):
    tokenizer = tokenizer_of(CHATML)
    model = writer(tokenizer, "take", "<|user|>", "water", "<|im_end|>")
    [[answer]] = TransformersGenerator(model, tokenizer).write(
        ["take"], Sampling(temperature=0, max_new_tokens=8)
    )
    assert answer == "take <|user|> water"


def test_the_local_judge_scores_the_same_end(tmp_path):
    tokenizer = tokenizer_of(CHATML)
    make_model("llama", vocab_size=len(SPECIAL) + len(WORDS) + len(MARKS)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _, options = LocalBackend(str(tmp_path))._encoded(TURNS[:1], ["yes", "no"])
    assert [tokenizer.convert_ids_to_tokens(each.tolist())[-1] for each in options] == ["<|im_end|>"] * 2


def test_no_end_of_turn_is_said_once(caplog):
    tokenizer = tokenizer_of(BARE)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tokenize(tokenizer, TURNS)
    assert [each.message for each in caplog.records if "no token of its own" in each.message] == [
        "base_model: the chat template ends an answer with no token of its own; the last one of a row ends with <end>"
    ]


def test_no_end_of_turn_and_no_eos_is_refused():
    tokenizer = tokenizer_of(BARE)
    tokenizer.eos_token = None
    with pytest.raises(GrasplError, match=r"^base_model: .*the tokenizer has no eos_token; give it"):
        tokenize(tokenizer, TURNS)
