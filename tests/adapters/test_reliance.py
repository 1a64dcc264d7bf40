import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graspl.adapters import pair_reliance, read_reliance, update_norm, write_reliance


def orthonormal(rows, k, generator):
    return torch.linalg.qr(torch.randn(rows, k, generator=generator, dtype=torch.float64))[0]


@given(seed=st.integers(0, 2**31), out=st.integers(2, 20), in_=st.integers(2, 20), r=st.integers(1, 6))
def test_reliance_equals_the_dense_formula(seed, out, in_, r):
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(out, r, generator=generator, dtype=torch.float64)
    A = torch.randn(r, in_, generator=generator, dtype=torch.float64)
    U, V = orthonormal(out, 2, generator), orthonormal(in_, 2, generator)
    dense = B @ A
    assert update_norm(B, A) == pytest.approx(float(dense.norm()))
    assert write_reliance(B, A, U) == pytest.approx(float((U.mT @ dense).norm() / dense.norm()))
    assert read_reliance(B, A, V) == pytest.approx(float((dense @ V).norm() / dense.norm()))
    expected = float((U.mT @ dense @ V).diagonal().norm() / dense.norm())
    assert pair_reliance(B, A, U, V) == pytest.approx(expected)


def test_reliance_is_one_along_the_update_and_zero_for_no_update():
    U, V = torch.eye(4)[:, :1], torch.eye(3)[:, :1]
    B, A = 2 * U, V.mT.contiguous()
    for value in (write_reliance(B, A, U), read_reliance(B, A, V), pair_reliance(B, A, U, V)):
        assert value == pytest.approx(1)
    assert write_reliance(0 * B, A, U) == read_reliance(0 * B, A, V) == pair_reliance(0 * B, A, U, V) == 0
