"""The finished update without a part of its spectrum."""

import pytest
import torch
from fits import adam

from graspl.errors import GrasplError
from graspl.methods.state import factors, finished_factors
from graspl.transforms import Truncate


@pytest.mark.parametrize("part", ["top", "tail"])
def test_a_spectrum_is_cut_at_one_end(finished, part):
    naive, saved = finished(Truncate(keep=3, part=part))
    for name, update in naive.items():
        U, S, Vh = torch.linalg.svd(update)
        rank = int((1e-6 * S[0] < S).sum())
        first = 0 if part == "top" else rank - 3
        kept = slice(first, first + 3)
        torch.testing.assert_close(
            saved[name], U[:, kept] @ torch.diag(S[kept]) @ Vh[kept], atol=1e-5, rtol=1e-3
        )


def test_a_whole_spectrum_stays(fit):
    module, _ = fit(optimizer=adam, transforms=[Truncate(keep=32)])
    saved = finished_factors(module)
    for name, p in factors(module.model).items():
        torch.testing.assert_close(saved[name], p.detach(), atol=1e-6, rtol=1e-5)


def test_fewer_than_none_are_refused():
    with pytest.raises(GrasplError, match=r"Truncate\.keep: -1"):
        Truncate(keep=-1)
