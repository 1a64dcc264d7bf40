import torch
from hypothesis import given
from hypothesis import strategies as st

from graspl.constraints import project_together


def projected(G, D):
    X = G.clone()
    project_together([(X, D)])
    return X


@given(seed=st.integers(0, 2**31), out=st.integers(1, 40), r=st.integers(1, 8), k=st.integers(0, 4))
def test_projection_is_idempotent_never_longer_and_empties_the_direction(seed, out, r, k):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(out, r, generator=generator, dtype=torch.float64)
    D = torch.linalg.qr(torch.randn(out, min(k, out), generator=generator, dtype=torch.float64))[0]
    once = projected(G, D)
    torch.testing.assert_close(once, G - D @ (D.mT @ G), rtol=0, atol=1e-12)
    torch.testing.assert_close(projected(once, D), once, rtol=0, atol=1e-12)
    assert once.norm() <= G.norm() + 1e-12
    assert (D.mT @ once).abs().sum() < 1e-10
    if k == 0:
        assert torch.equal(once, G)
    else:
        assert (D.mT @ G).norm() > 0  # positive control: there was something to remove
