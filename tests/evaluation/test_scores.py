import math

import pytest
import torch
from conftest import make_model, make_tokenizer

from graspl.adapters.forward import model_logits
from graspl.adapters.loss import logits_only_at
from graspl.analysis import headline
from graspl.data import ChoiceCollator, ChoiceItem, TokenizedConversation
from graspl.data.batches import PaddedCollator
from graspl.evaluation import (
    ChoiceShares,
    SuiteEvaluator,
    candidate_logprobs,
    kl_to_base,
    text_scores,
)
from graspl.evaluation.logprobs import answer_mask, distinct_places

QUESTION = [{"role": "user", "content": "how do i open the file"}]
ITEMS = [
    ChoiceItem(QUESTION, ["yes", "no", "maybe"], ["good", "harmful", "other"]),
    ChoiceItem(QUESTION[:1], ["take pills", "take water", "rest one two"], ["harmful", "good", "other"]),
]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_shared_rows_give_the_log_probability_of_each_answer_alone(kind):
    model, tokenizer = make_model(kind).eval(), make_tokenizer()
    batch = ChoiceCollator(tokenizer)(ITEMS)
    with torch.no_grad():
        found = candidate_logprobs(model_logits(model, batch), batch)
        expected = []
        for item in ITEMS:
            prompt = tokenizer.apply_chat_template(item.messages, tokenize=False, add_generation_prompt=True)
            start = len(tokenizer(prompt).input_ids)
            for candidate in item.candidates:
                ids = torch.tensor([tokenizer(prompt + candidate).input_ids])
                scores = model(ids).logits[0].log_softmax(-1)
                expected.append(sum(float(scores[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)


def test_choice_shares_of_a_hand_computed_case():
    batch = {
        "candidate_item": torch.tensor([0, 0, 0, 1, 1]),
        "candidate_kind": torch.tensor([1, 0, 2, 0, 1]),
        "num_items": 2,
    }
    shares = ChoiceShares()
    shares.update(torch.tensor([0.5, 0.2, 0.1, 0.3, 0.3]).log(), batch)
    found = {name: float(value) for name, value in shares.compute().items()}
    assert found == pytest.approx(
        {
            "harmful": (0.2 + 0.3) / 2,
            "good": (0.5 + 0.3) / 2,
            "coherence": (0.8 + 0.6) / 2,
            "harmful_greedy": 0.25,  # the second question is a tie
            "good_greedy": 0.75,
            "harmful_of_choices": (0.2 / 0.8 + 0.5) / 2,
            "good_of_choices": (0.5 / 0.8 + 0.5) / 2,
        }
    )


def test_batches_add_up_to_the_same_shares():
    model, tokenizer = make_model("llama").eval(), make_tokenizer()
    whole, parts = ChoiceShares(), ChoiceShares()
    with torch.no_grad():
        for shares, groups in ((whole, [ITEMS]), (parts, [ITEMS[:1], ITEMS[1:]])):
            for group in groups:
                batch = ChoiceCollator(tokenizer)(group)
                shares.update(candidate_logprobs(model_logits(model, batch), batch), batch)
    for name, value in whole.compute().items():
        assert float(parts.compute()[name]) == pytest.approx(float(value), abs=1e-6)


def test_text_scores_equal_the_models_own_loss():
    model = make_model("llama").eval()
    rows = [
        TokenizedConversation([4, 8, 9, 10, 2], [-100, -100, 9, 10, 2]),
        TokenizedConversation([4, 8, 9], [-100, 8, 9]),
    ]
    batch = PaddedCollator(1)(rows)
    with torch.no_grad():
        logits = model_logits(model, batch)
        losses, hits = text_scores(logits, batch["labels"])
        expected = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
        ).loss
    assert float(losses.mean()) == pytest.approx(float(expected), rel=1e-5)
    places = [(0, 1, 9), (0, 2, 10), (0, 3, 2), (1, 0, 8), (1, 1, 9)]  # row, position before, token
    assert hits.tolist() == [int(logits[row, place].argmax()) == token for row, place, token in places]


def test_divergence_of_a_hand_computed_case():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    logits, base = p.log()[None, None], q.log()[None, None]
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert float(kl_to_base(logits, base, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(kl_to_base(base, base, mask)) == pytest.approx(0, abs=1e-7)


def test_the_divergence_is_taken_where_answers_are_predicted():
    batch = ChoiceCollator(make_tokenizer())(ITEMS)
    mask = answer_mask(batch, batch["input_ids"].shape[1])
    # item 1: one place; item 2: the place before `take` in each of two rows, after `take`, after `rest`, after `one`
    assert int(mask.sum()) == 1 + 2 + 3
    distinct = distinct_places(batch, mask)  # The place before the answers of item 2 counts once
    assert int(distinct.sum()) == 1 + 1 + 3
    assert not (distinct & ~mask).any()
    text = PaddedCollator(1)([TokenizedConversation([4, 8, 9, 2], [-100, -100, 9, 2])])
    assert answer_mask(text, 4).tolist() == [[False, True, True, False]]


def test_every_token_of_a_suite_weighs_the_same():
    model = make_model("llama").eval()
    rows = [
        TokenizedConversation([4, 8, 9, 10, 2], [-100, -100, 9, 10, 2]),
        TokenizedConversation([4, 8, 9], [-100, -100, 9]),
    ]
    whole, parts = SuiteEvaluator(), SuiteEvaluator()
    with torch.no_grad():
        for evaluator, groups in ((whole, [rows]), (parts, [rows[:1], rows[1:]])):
            for group in groups:
                batch = PaddedCollator(1)(group)
                logits = model_logits(model, batch)
                evaluator.update(batch, logits, 0.5 * logits)
    found = whole.compute()
    assert set(found) == {"loss", "token_accuracy", "base_loss", "base_token_accuracy", "kl", "num_items"}
    assert found["num_items"] == 2
    assert found["kl"] > 0
    # The divergence is small, but it is a sum of differences of float32 logs of size 4, each known to 5e-7
    assert parts.compute() == pytest.approx(found, rel=1e-5, abs=1e-6)
    assert found["kl"] > 100 * 1e-6  # the tolerance still tells one token's weight from another's


def test_headlines_of_choices_and_of_text():
    assert headline(
        {"task": {"harmful": 0.9}, "unrelated": {"harmful": 0.4, "coherence": 0.8, "kl": 1.0}}
    ) == {
        "adherence": 0.9,
        "spillover": 0.4,
        "coherence": 0.8,
        "kl": 1.0,
    }
    assert headline({"task": {"token_accuracy": 0.7}}) == {
        "adherence": 0.7,
        "spillover": None,
        "coherence": None,
        "kl": None,
    }


def test_an_evaluator_measures_no_divergence_between_a_model_and_itself():
    model, batch = make_model("llama").eval(), ChoiceCollator(make_tokenizer())(ITEMS)
    evaluator = SuiteEvaluator()
    assert not evaluator.seen
    with torch.no_grad():
        logits = model_logits(model, batch)
    evaluator.update(batch, logits, logits)
    found = evaluator.compute()
    assert found["kl"] == pytest.approx(0, abs=1e-7)
    assert found["num_items"] == 2
    assert found["coherence"] >= found["harmful"] + found["good"] - 1e-9


def test_a_suite_takes_the_base_models_scores_from_an_earlier_validation():
    model, batch = make_model("llama").eval(), ChoiceCollator(make_tokenizer())(ITEMS)
    with torch.no_grad():
        logits = model_logits(model, batch)
    first = SuiteEvaluator()
    first.update(batch, logits, 0.5 * logits)
    later = SuiteEvaluator(first, kl=False)
    later.update(batch, 2 * logits, None)
    whole = SuiteEvaluator()
    whole.update(batch, 2 * logits, 0.5 * logits)
    expected = whole.compute()
    del expected["kl"]
    assert later.compute() == pytest.approx(expected)
    assert later.items(base=True) == whole.items(base=True)


@pytest.mark.parametrize("kind", ["choices", "text"])
def test_logits_where_answers_are_predicted_are_enough(kind):
    model = make_model("llama").eval()
    rows = [
        TokenizedConversation([4, 8, 9, 10, 2], [-100, -100, 9, 10, 2]),
        TokenizedConversation([4, 8, 9], [-100, -100, 9]),
    ]
    batch = ChoiceCollator(make_tokenizer())(ITEMS) if kind == "choices" else PaddedCollator(1)(rows)
    mask = answer_mask(batch, batch["input_ids"].shape[1])
    assert 0 < int(mask.sum()) < mask.numel()
    found = []
    with torch.no_grad():
        whole = model_logits(model, batch)
        with logits_only_at(model, mask.flatten().nonzero()[:, 0], mask.numel()):
            picked = model_logits(model, batch)
    assert picked.shape == (1, int(mask.sum()), whole.shape[-1])
    for logits in (whole, picked):
        evaluator = SuiteEvaluator()
        evaluator.update(batch, logits, 0.5 * logits)
        found.append(evaluator.compute())
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-6)
