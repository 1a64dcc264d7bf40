"""The spectral and the drift penalty, by hand."""

import pytest
import torch

from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.penalties import DriftPenalty
from graspl.penalties.spectral import concentration


def test_concentration_is_frobenius_over_nuclear_norm():
    generator = torch.Generator().manual_seed(0)
    A, B = torch.randn(3, 9, generator=generator), torch.randn(7, 3, generator=generator)
    S = torch.linalg.svdvals((B @ A).double())
    assert float(concentration(A, B)) == pytest.approx(float(S.norm() / S.sum()), rel=1e-3)
    one = torch.zeros(7, 3)
    one[:, 0] = 1.0
    assert float(concentration(torch.eye(3, 9), one)) == pytest.approx(1.0, rel=2e-3)
    flat = torch.eye(7, 3)
    assert float(concentration(torch.eye(3, 9), flat)) == pytest.approx(3**-0.5, rel=1e-3)


def test_concentration_has_a_gradient_of_zero_where_b_is_zero():
    A, B = torch.randn(3, 9), torch.zeros(7, 3, requires_grad=True)
    concentration(A, B).backward()
    assert torch.equal(B.grad, torch.zeros(7, 3))


def test_drift_is_that_of_the_tokens_which_all_rows_begin_with(part_fit):
    penalty = DriftPenalty(weight=0.0)
    module = part_fit()
    penalty.begin(module)
    rows = [row.input_ids for row in module.trainer.datamodule.train_conversations()]
    prefix = penalty._ids[0].tolist()
    assert all(row[: len(prefix)] == prefix for row in rows)
    assert len({row[len(prefix)] for row in rows}) > 1
    cache = module.model(input_ids=penalty._ids, use_cache=True).past_key_values
    with module.model.disable_adapter():
        before = module.model(input_ids=penalty._ids, use_cache=True).past_key_values
    expected = [
        ((ours - theirs).square().sum() / theirs.square().sum()).item()
        for ours, theirs in zip(
            [t for layer in cache.layers for t in (layer.keys, layer.values)],
            [t for layer in before.layers for t in (layer.keys, layer.values)],
            strict=True,
        )
    ]
    found = penalty.term(module, {}, torch.empty(0)).detach()
    assert float(found) == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert float(found) > 0


class Rows:
    """Two rows that begin with different tokens."""

    device = torch.device("cpu")

    class trainer:
        class datamodule:
            @staticmethod
            def train_conversations():
                return [TokenizedConversation([1, 2], [1, 2]), TokenizedConversation([3, 2], [3, 2])]


def test_rows_that_begin_differently_are_refused():
    with pytest.raises(GrasplError, match="do not begin with the same tokens; use a chat template"):
        DriftPenalty().begin(Rows())
