import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graspl.adapters import thin_svd
from graspl.errors import NonFiniteAdapterError


@given(
    seed=st.integers(0, 2**31),
    out=st.integers(1, 24),
    in_=st.integers(1, 24),
    r=st.integers(1, 8),
    scaling=st.floats(0.1, 8.0),
)
def test_thin_svd_equals_the_dense_svd(seed, out, in_, r, scaling):
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(out, r, generator=generator, dtype=torch.float64)
    A = torch.randn(r, in_, generator=generator, dtype=torch.float64)
    U, S, V = thin_svd(B, A, scaling)
    dense = torch.linalg.svdvals(scaling * B @ A)[: len(S)]
    torch.testing.assert_close(S, dense, rtol=1e-9, atol=1e-9)  # float64 rounding of a few products
    torch.testing.assert_close(U @ torch.diag(S) @ V.mT, scaling * B @ A, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(U.mT @ U, torch.eye(len(S), dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(V.mT @ V, torch.eye(len(S), dtype=torch.float64), rtol=0, atol=1e-9)


def test_thin_svd_computes_half_precision_factors_in_float32():
    B, A = torch.randn(6, 2).bfloat16(), torch.randn(2, 5).bfloat16()
    assert thin_svd(B, A, 1.0).S.dtype == torch.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_thin_svd_names_the_site_with_a_bad_number(bad):
    B = torch.zeros(4, 2)
    B[1, 1] = bad
    with pytest.raises(NonFiniteAdapterError, match=r"layers\.3\.q_proj"):
        thin_svd(B, torch.ones(2, 3), 1.0, site="layers.3.q_proj")


def test_factors_whose_product_overflows_are_refused():
    with pytest.raises(NonFiniteAdapterError, match="layer: B A overflows"):
        thin_svd(torch.full((4, 2), 1e30), torch.full((2, 5), 1e30), 1.0, site="layer")
