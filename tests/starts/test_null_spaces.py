"""The null-space starts of benchmarks/real, by hand and on a tiny model."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "real"))
from null_starts import NullSpaceStart, contrastive_basis, moments_of  # noqa: E402


def moments(size, tokens, *, seed):
    x = torch.randn(tokens, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.mT @ x / tokens


def test_the_basis_solves_the_generalized_eigenproblem():
    task, general, ridge = moments(12, 30, seed=0), moments(12, 40, seed=1), 1e-3
    basis, values = contrastive_basis(task, general, 4, ridge)
    held = general + ridge * general.diagonal().mean() * torch.eye(12)
    L = torch.linalg.cholesky(held)
    whitened = torch.linalg.solve(L, torch.linalg.solve(L, task).mT)
    expected, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    torch.testing.assert_close(values, expected[-4:].flip(0))
    span = torch.linalg.qr(torch.linalg.solve(L.mT, vectors[:, -4:]))[0]
    torch.testing.assert_close(basis @ basis.mT, span @ span.mT)


def test_what_general_text_alone_uses_is_not_in_the_basis():
    quiet, loud = torch.eye(6, dtype=torch.float64)[:, :2], torch.eye(6, dtype=torch.float64)[:, 2:]
    task = quiet @ quiet.mT + loud @ loud.mT
    basis, values = contrastive_basis(task, 5 * loud @ loud.mT, 2, 1e-6)
    assert (loud.mT @ basis).abs().max() < 1e-6
    assert values.min() > 1e5


@pytest.mark.parametrize("kind", ["contrastive", "null", "random"])
def test_it_begins_orthonormal_and_A_stays(kind, part_fit):
    before = {}

    class Kept(NullSpaceStart):
        def begin(self, host):
            super().begin(host)
            before.update({site.name: site.A.detach().clone() for site in host.sites})

    optimizer = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0)
    module = part_fit(start=Kept(kind=kind, limit=8), optimizer=optimizer)
    for site in module.sites:
        A = before[site.name]
        torch.testing.assert_close(A @ A.mT, torch.eye(A.shape[0]), rtol=0, atol=1e-5)
        assert torch.equal(site.A, A)
        assert site.B.any()


def test_sites_that_read_the_same_share_their_moments(part_fit):
    module = part_fit()
    rows = module.trainer.datamodule.text_conversations()[:6]
    found = moments_of(module, rows)
    read = {}
    for site in module.sites:
        module.model.get_base_model().get_submodule(site.name).register_forward_pre_hook(
            lambda _m, args, name=site.name: read.setdefault(name, []).append(args[0][0].double())
        )
    for row in rows:  # one by one, without padding
        ids = torch.as_tensor(row.input_ids)[None]
        module.base_forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert found.tokens == sum(len(row) for row in rows)
    assert len(found.sums) < len(module.sites)
    for site in module.sites:
        x = torch.cat(read[site.name])
        torch.testing.assert_close(found.of(site.name), (x.mT @ x) / len(x), rtol=1e-4, atol=1e-6)
