"""The KL penalty, on the task's rows and on text."""

import pytest
import torch
from conftest import CHAT_ROWS
from fits import adam, answers_of, batch_of, factors, gradients, weighed

from graspl.adapters import LoraOptions, decoder_layers
from graspl.adapters.loss import summed_loss
from graspl.constraints import ActivationConstraint
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule
from graspl.penalties import KLPenalty


def test_kl_is_added_a_token_at_a_time(fit):
    """The gradient of a step is that of mean cross-entropy + weight * mean divergence."""
    module, trainer = fit(optimizer=adam, penalties=[KLPenalty(weight=3.0)])
    batch = batch_of(trainer)
    found = gradients(module, weighed(module, batch, answers_of(module, batch)))
    logits, base = module(batch).log_softmax(-1), module.base_forward(batch).log_softmax(-1)
    places = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    by_hand = 3.0 * (logits.exp() * (logits - base)).sum(-1)[places].mean()
    torch.testing.assert_close(found, gradients(module, by_hand), atol=1e-6, rtol=1e-4)


def test_the_step_is_of_the_loss_and_the_penalty(fit):
    """What training_step returns is the sum over answer tokens of the loss and of the weighed divergence."""
    module, trainer = fit(optimizer=adam, penalties=[KLPenalty(weight=3.0)])
    batch = batch_of(trainer)
    found = gradients(module, module.training_step(batch, 0))
    logits = module(batch)
    loss, tokens = summed_loss(logits, batch["labels"])
    extra = weighed(module, batch, answers_of(module, batch))
    by_hand = gradients(module, loss + tokens * extra)
    torch.testing.assert_close(found * 256, by_hand, atol=1e-5, rtol=1e-4)


def test_kl_on_other_rows_reads_them_in_turns(fit, write_rows):
    rows = [{"prompt": f"take {w}", "completion": "rest"} for w in ("one", "two", "three")]
    text = {"data": {"text": str(write_rows(rows, "others.jsonl"))}}
    penalty = KLPenalty(weight=1.0, rows="text", rows_per_step=2)
    module, _ = fit(optimizer=adam, penalties=[penalty], **text)
    naive, _ = fit(optimizer=adam)
    assert not torch.equal(factors(module), factors(naive))
    (rows,) = module.penalties[0]._texts
    assert len(rows) == 3
    assert module.global_step == 3
    first = 3 * 2  # three steps of two rows, so the next one begins with the first row again
    expected = [rows[(first + each) % 3].input_ids for each in range(2)]
    found = module.penalties[0]._next_rows(module, rows)["input_ids"]
    assert [row[: len(ids)] for row, ids in zip(found.tolist(), expected, strict=True)] == expected
    both, _ = fit(optimizer=adam, penalties=[KLPenalty(rows="own_text", own_text=3, rows_per_step=2)], **text)
    assert [len(each) for each in both.penalties[0]._texts] == [3, 3]
    for options, settings in (({"max_length": 2}, text), ({}, {})):
        with pytest.raises(GrasplError, match=r"KLPenalty\.rows: no text of at most"):
            fit(penalties=[KLPenalty(rows="text", **options)], **settings)


def test_grasp_with_divergence_is_grasp_and_more(fit, layer_directions, write_rows):
    same = {
        "optimizer": adam, "directions": layer_directions, "lora": LoraOptions(r=4),
        "constraints": [ActivationConstraint(k=2, tolerance=0.1)], "lightning": {"max_steps": 4},
        "data": {"text": str(write_rows(CHAT_ROWS, "text.jsonl"))},
    }  # fmt: skip
    grasp, _ = fit(GRASPLitModule, **same)
    none, _ = fit(GRASPLitModule, penalties=[KLPenalty(weight=0.0, rows="text")], **same)
    assert torch.equal(factors(grasp), factors(none))
    penalty = KLPenalty(weight=1.0, rows="text", rows_per_step=2)
    module, trainer = fit(GRASPLitModule, penalties=[penalty], **same)
    assert not torch.equal(factors(grasp), factors(module))
    # The pass over the text is not cut: its gradient is that of a model without the constraint
    batch = batch_of(trainer)

    def attach():
        module.constraints[0].attach(decoder_layers(module.model), module.directions_in_use)

    attach()
    held = gradients(module, weighed(module, batch, torch.empty(0)))
    module.constraints[0].detach()
    free = gradients(module, weighed(module, batch, torch.empty(0)))
    assert torch.equal(held, free)
    attach()
    cut, _ = (gradients(module, summed_loss(module(batch), batch["labels"])[0]), module.held.release())
    assert not torch.equal(cut, gradients(module, summed_loss(module(batch), batch["labels"])[0]))
