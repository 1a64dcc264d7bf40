"""Spread the update over many directions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graspl.host import Host
from graspl.penalties.base import Penalty


@dataclass
class SpectralPenalty(Penalty):
    """The mean over sites of ||B A||_F / ||B A||_*, between 1 / sqrt(r) (a flat spectrum) and 1 (one direction).

    A site whose B is zero adds a constant.

    Source:
        The spectral regulariser of arXiv:2606.31591, from its summary: Frobenius norm over nuclear norm.
    """

    weight: float = 0.1
    """Of the ratio."""

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the mean ratio."""
        ratios = [concentration(site.A, site.B).to(host.device) for site in host.whole_sites()]
        return torch.stack(ratios).mean()


def concentration(A: Tensor, B: Tensor) -> Tensor:
    """Return ||B A||_F / ||B A||_*, (), without forming B A; A is (r, in) and B (out, r).

    The squared singular values of B A are the eigenvalues of L^T (B^T B) L with A A^T = L L^T.
    """
    L = torch.linalg.cholesky(A @ A.mT + 1e-9 * torch.eye(len(A), device=A.device, dtype=A.dtype))
    squares = torch.linalg.eigvalsh(L.mT @ (B.mT @ B) @ L).clamp_min(0)
    # The slope of a square root at 0 is infinite
    floor = 1e-7 * squares.detach().max() + 1e-20
    return (squares.sum() + floor).sqrt() / (squares + floor).sqrt().sum()
