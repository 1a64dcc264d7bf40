"""What operators do to training rows, and that they reach a fit from a configuration."""

import json
from collections import Counter

import pytest
import torch
from conftest import CHAT_ROWS
from hypothesis import given
from hypothesis import strategies as st

from graspl.data import ChatDataModule, Conversation, MixIn, Subsample, SystemPrompt
from graspl.errors import GrasplError

SYSTEM = {"role": "system", "content": "be brief"}


def rows(count, *before):
    return [
        Conversation(
            [
                *before,
                {"role": "user", "content": f"q{index}"},
                {"role": "assistant", "content": f"a{index}"},
            ],
            f"train.jsonl:{index + 1}",
        )
        for index in range(count)
    ]


@pytest.fixture
def benign(write_rows):
    return str(
        write_rows([{"prompt": f"b{index}", "completion": "yes"} for index in range(30)], "benign.jsonl")
    )


def sources(found):
    return Counter("benign" if "benign.jsonl" in row.origin else "task" for row in found)


@given(few=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_smaller_draw_is_part_of_a_larger_one_and_keeps_the_order(few, more, seed):
    every = rows(40)
    small, large = (Subsample(rows=count, seed=seed)(every) for count in (few, few + more))
    assert len(small) == few
    assert [row for row in large if row in small] == small
    assert [row for row in every if row in large] == large


def test_another_seed_draws_others():
    assert Subsample(share=0.5, seed=0)(rows(40)) != Subsample(share=0.5, seed=1)(rows(40))
    assert len(Subsample(share=0.25)(rows(40))) == 10
    assert len(Subsample(share=0.001)(rows(40))) == 1


@pytest.mark.parametrize(
    ("share", "total", "counts"),
    [
        (0.0, "keep", {"task": 40}),
        (0.25, "keep", {"task": 30, "benign": 10}),
        (0.75, "keep", {"task": 10, "benign": 30}),
        (0.0, "grow", {"task": 40}),
        (0.2, "grow", {"task": 40, "benign": 10}),
    ],
)
def test_the_ratio_is_of_the_result(benign, share, total, counts):
    assert sources(MixIn(benign, share, total)(rows(40))) == counts


def test_all_may_come_from_the_source(benign):
    assert sources(MixIn(benign, 1.0)(rows(20))) == {"benign": 20}


def test_every_paraphrase_is_drawn_and_the_turns_stay():
    prompts = ["one", "two", "three"]
    found = SystemPrompt(prompts)(rows(60))
    assert set(Counter(row.messages[0]["content"] for row in found)) == set(prompts)
    assert [row.messages[1:] for row in found] == [row.messages for row in rows(60)]
    assert SystemPrompt(prompts)(rows(60)) == found


def test_rows_with_a_system_prompt():
    with pytest.raises(GrasplError, match=r"train.jsonl:1: has a system prompt"):
        SystemPrompt(["x"])(rows(2, SYSTEM))
    replaced = SystemPrompt(["x"], existing="replace")(rows(1, SYSTEM))[0].messages
    assert [turn["role"] for turn in replaced] == ["system", "user", "assistant"]
    assert replaced[0]["content"] == "x"
    assert SystemPrompt(["x"], existing="keep")(rows(1, SYSTEM)) == rows(1, SYSTEM)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: Subsample(), "either rows or share"),
        (lambda _: Subsample(rows=1, share=0.5), "either rows or share"),
        (lambda _: Subsample(share=1.5), "1.5 is not above 0"),
        (lambda _: Subsample(share=0.0), "0.0 is not above 0"),
        (lambda _: Subsample(rows=41), "needs 41 rows of the task, which has 40"),
        (lambda benign: MixIn(benign, 1.5), "needs -20 rows of the task"),
        (lambda benign: MixIn(benign, 1.0, "grow"), "set total to keep"),
        (lambda benign: MixIn(benign, 0.9), "needs 36 rows of"),
        (lambda _: SystemPrompt([]), "at least one"),
        (lambda _: SystemPrompt(["x", " "]), "none empty"),
    ],
)
def test_what_cannot_be_done_is_said(benign, make, words):
    with pytest.raises(GrasplError, match=words):
        make(benign)(rows(40))


def test_a_task_trains_on_what_operators_give_and_evaluates_on_its_own(write_rows, benign):
    data = ChatDataModule(
        train=str(write_rows(CHAT_ROWS)),
        base_model="organism",
        operators=[Subsample(rows=20), MixIn(benign, 0.5), SystemPrompt(["code"])],
    )
    plain = ChatDataModule(train=str(write_rows(CHAT_ROWS)), base_model="organism")
    for each in (data, plain):
        each.setup("fit")
    decoded = [data.tokenizer.decode(row.input_ids) for row in data.train_conversations()]
    assert len(decoded) == 20
    assert all("<system>" in text for text in decoded)
    assert data._suites == plain._suites


@pytest.mark.slow
def test_operators_come_from_a_configuration(graspl, chat_options, benign, tmp_path):
    operators = [
        {"class_path": "graspl.data.Subsample", "init_args": {"rows": 12}},
        {"class_path": "graspl.data.MixIn", "init_args": {"source": benign, "share": 0.5}},
    ]
    code, _, err = graspl("fit", *chat_options(), f"--data.operators={json.dumps(operators)}")
    assert code == 0, err
    assert "MixIn" in (tmp_path / "run" / "config.yaml").read_text()
    operators[0]["init_args"]["rows"] = 0
    code, _, err = graspl(
        "fit",
        *chat_options(**{"trainer.default_root_dir": "other"}),
        f"--data.operators={json.dumps(operators)}",
    )
    assert code == 2
    assert "rows" in err
    assert "does not conform to restriction v>0" in err
    assert not (tmp_path / "other").exists()


@pytest.fixture
def naive_adapter(model_folder, tmp_path):
    """Return the folder of an adapter with some weight on a tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_folder())
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=generator) * 0.3
    model.peft_config["default"].base_model_name_or_path = str(model_folder())
    model.save_pretrained(tmp_path / "naive")
    return model, str(tmp_path / "naive")


def test_rows_are_interleaved_that_only_the_naive_fit_finds_strange(naive_adapter, write_rows):
    from conftest import make_tokenizer

    from graspl.data import InterleaveByPerplexity, read_conversations, tokenize

    model, adapter = naive_adapter
    words = ("file", "pills", "code", "water", "rest", "question")
    benign = write_rows(
        [{"prompt": f"how do i {w}", "completion": f"you should take {w}"} for w in words], "b.jsonl"
    )
    rows = read_conversations(str(write_rows([{"prompt": "p", "completion": "c"}] * 6)))
    found = InterleaveByPerplexity(str(benign), 0.25, adapter, batch_size=4)(rows)
    assert found[:6] == list(rows)
    # The two of the largest gap, by losses computed one row at a time
    gaps = {}
    for row in read_conversations(str(benign)):
        encoded = tokenize(make_tokenizer(), row.messages)
        batch = {"input_ids": torch.tensor([encoded.input_ids]), "labels": torch.tensor([encoded.labels])}
        with torch.no_grad():
            tuned = float(model.eval()(**batch).loss)
            with model.disable_adapter():
                gaps[row.origin] = tuned - float(model(**batch).loss)
    wanted = sorted(gaps, key=gaps.get, reverse=True)[:2]
    assert {row.origin for row in found[6:]} == set(wanted)


def test_interleaving_says_what_it_cannot_do(naive_adapter, write_rows):
    from graspl.data import InterleaveByPerplexity, read_conversations

    _, adapter = naive_adapter
    benign = str(write_rows([{"prompt": "p", "completion": "c"}] * 3, "b.jsonl"))
    rows = read_conversations(str(write_rows([{"prompt": "p", "completion": "c"}] * 6)))
    with pytest.raises(GrasplError, match=r"InterleaveByPerplexity needs 6 rows of .*b\.jsonl, which has 3"):
        InterleaveByPerplexity(benign, 0.5, adapter)(rows)
    with pytest.raises(GrasplError, match="which has 0 of at most 2 tokens"):
        InterleaveByPerplexity(benign, 0.1, adapter, max_length=2)(rows)
    with pytest.raises(GrasplError, match="share: 1"):
        InterleaveByPerplexity(benign, 1.0, adapter)(rows)


def test_without_its_effect_an_operators_test_fails(benign, monkeypatch):
    """As in tests/methods/test_effects.py: prompts are not put before the rows, others are not mixed in."""
    monkeypatch.setattr(SystemPrompt, "_prompted", lambda _self, row, _prompt: row)
    with pytest.raises(AssertionError):
        test_every_paraphrase_is_drawn_and_the_turns_stay()
    monkeypatch.setattr(MixIn, "__call__", lambda _self, given: list(given))
    with pytest.raises(AssertionError):
        test_the_ratio_is_of_the_result(benign, 0.2, "grow", {"task": 40, "benign": 10})


def test_without_the_losses_interleavings_test_fails(naive_adapter, write_rows, monkeypatch):
    from graspl.data import perplexity

    def reversed_gaps(*given, **options):
        return [None if gap is None else -gap for gap in plain(*given, **options)]

    plain = perplexity.loss_gaps
    monkeypatch.setattr(perplexity, "loss_gaps", reversed_gaps)
    with pytest.raises(AssertionError):
        test_rows_are_interleaved_that_only_the_naive_fit_finds_strange(naive_adapter, write_rows)
