"""The consistency penalty: an auxiliary pass, one step uphill."""

import pytest
from fits import adam, answers_of, batch_of

from graspl.adapters.loss import summed_loss
from graspl.errors import GrasplError
from graspl.penalties import ConsistencyPenalty


def test_the_auxiliary_pass_is_a_step_uphill_that_the_penalty_flattens(fit):
    steps = {"max_steps": 12}
    naive, trainer = fit(optimizer=adam, penalties=[ConsistencyPenalty(weight=1e-9)], lightning=steps)
    held, _ = fit(optimizer=adam, penalties=[ConsistencyPenalty(weight=20.0)], lightning=steps)
    batch = batch_of(trainer)

    def measured(module):
        """Return the distance between the passes, and how much higher the loss of the auxiliary one is."""
        losses, [penalty] = [], module.penalties
        plain = module(batch)
        penalty.begin(module)
        answers = answers_of(module, batch)
        forward = module.forward
        module.forward = lambda given: losses.append(forward(given)) or losses[-1]
        distance = float(penalty.term(module, batch, answers).detach())
        module.forward = forward
        penalty.end()
        risen = summed_loss(losses[0], batch["labels"])[0] - summed_loss(plain, batch["labels"])[0]
        return distance, float(risen.detach())

    flat, steep = measured(held), measured(naive)
    assert steep[1] > 0
    assert flat[1] > 0
    assert flat[0] < 0.9 * steep[0]


def test_a_step_of_nothing_is_refused():
    with pytest.raises(GrasplError, match=r"ConsistencyPenalty\.step: 0"):
        ConsistencyPenalty(step=0)
