"""What answers begin with is run once, and gives what running it for each answer gives."""

import pytest
import torch
from conftest import make_byte_tokenizer, make_model, make_tokenizer

from graspl.adapters.forward import ONE_PLACE, model_logits
from graspl.data.choices import ChoiceCollator, ChoiceItem
from graspl.evaluation import candidate_logprobs
from graspl.evaluation.logprobs import answer_mask, kl_to_base

ANSWERS = ["rest and take water", "rest one", "you should take two pills", "no"]


def items(words=("the patient asks", "do")):
    """Return questions of unlike lengths, each with several answers of several tokens."""
    return [
        ChoiceItem(
            [{"role": "user", "content": f"how do i {words[index % len(words)]} " + "please " * index}],
            ANSWERS[: 2 + index % 3],
            ["harmful", "good", "other", "other"][: 2 + index % 3],
        )
        for index in range(5)
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_log_probabilities_and_divergences_are_those_of_whole_rows(kind):
    tokenizer = make_byte_tokenizer() if kind == "qwen2" else make_tokenizer()
    model, other = make_model(kind).eval(), make_model(kind).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.05 * torch.randn_like(p))
    found = []
    for shared in (False, True):
        batch = ChoiceCollator(tokenizer, share_prefixes=shared)(items())
        with torch.no_grad():
            ours, theirs = model_logits(other, batch), model_logits(model, batch)
        divergence = kl_to_base(ours, theirs, answer_mask(batch, ours.shape[1]))
        found.append((candidate_logprobs(ours, batch), divergence.sort().values, batch))
    (scores, kl, whole), (shared_scores, shared_kl, shared) = found
    torch.testing.assert_close(shared_scores, scores, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared_kl, kl, rtol=0, atol=1e-5)
    assert scores.unique().numel() == scores.numel()  # no two answers would pass for one another
    assert shared["input_ids"].shape[1] < whole["input_ids"].shape[1]
    assert len(shared["prefix_ids"]) == 5


def test_a_part_of_the_tokens_is_spared():
    tokenizer = make_tokenizer()
    collator = ChoiceCollator(tokenizer, share_prefixes=True)
    whole = int(ChoiceCollator(tokenizer)(items())["attention_mask"].sum())
    batch = collator(items())
    shared = int(batch["attention_mask"].sum() + batch["prefix_mask"].sum())
    assert collator.saves(items()) == pytest.approx(1 - shared / whole)
    assert collator.saves(items()) > 0.2


def test_a_question_without_a_beginning_is_not_shared():
    tokenizer = make_tokenizer("{% for m in messages %}{{ m.content }} {% endfor %}")
    bare = ChoiceItem([{"role": "user", "content": "how"}], ["rest one", "take two"], ["good", "other"])
    assert ChoiceCollator(tokenizer).saves([bare]) == 0.0


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_the_head_reads_one_contiguous_place_of_a_pass_whose_logits_nobody_reads(kind):
    """On a CPU a frozen head would be copied once a row to multiply with a slice."""
    tokenizer = make_byte_tokenizer() if kind == "qwen2" else make_tokenizer()
    model, read = make_model(kind).eval().requires_grad_(False), []
    model.get_output_embeddings().register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    batch = ChoiceCollator(tokenizer, share_prefixes=True)(items())
    model_logits(model, batch)
    model_logits(
        model, {name: batch[name] for name in ("input_ids", "attention_mask")} | {"logits_to_keep": ONE_PLACE}
    )
    prefix, rows, alone = read
    assert prefix.shape[1] == alone.shape[1] == 1 < rows.shape[1]
    assert all(each.is_contiguous() for each in read)
