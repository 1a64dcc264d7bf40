"""Identification of layers' directions from what an adapter writes to the residual stream."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.adapters.residual import writers_by_layer
from graspl.adapters.sites import Site
from graspl.adapters.spectrum import ThinSVD, thin_svd
from graspl.directions.basis import Directions, LayerDirections
from graspl.directions.dimension import chosen_k
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class LayerSingular(Identification):
    """The top-k left singular vectors of what each layer writes to the residual stream.

    The updates of the layer's writers (attention output and MLP down-projection) stand side by side, [dW_1 dW_2], so
    k is at most the sum of their ranks. No dW is formed. What earlier layers wrote stays in the stream too, but taking
    it in made no difference (docs/method.md).

    Source:
        Own; claim 1 of arXiv:2605.27676 leaves open how sites are combined.
    """

    filters = True
    k: int | None = 8
    """Directions a layer; None takes as many as stand out (`chosen_k`), by the noise floor or by gaps without one."""
    floor: str | None = None
    """Adapter of as many steps with data.shuffle_answers: the noise floor, where k is None."""
    skip: int = 0
    """Leading ones to leave out: a control."""
    bottom: bool = False
    """Take the last k instead of the first: a control (shortcuts were seen in the tail, arXiv:2606.07596)."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Decompose the writers of every layer.

        Args:
            adapter: a trained adapter with `o_proj` or `down_proj` (or what the family calls them) among its sites.

        Raises:
            GrasplError: it has no such site, its update is zero, or k exceeds the rank.
        """
        if (self.k is not None and self.k < 1) or self.skip < 0:
            raise GrasplError(f"method: k = {self.k} and skip = {self.skip}; give k >= 1 and skip >= 0")
        found, spectra = {}, residual_spectra(adapter)
        k = self._chosen(spectra) if self.k is None else self.k
        for layer, (U, S) in spectra.items():
            last = self.skip + k
            if U.shape[1] < last:
                raise GrasplError(
                    f"{layer}: what is written has rank {U.shape[1]}, so {last} directions cannot be taken; lower k, or "
                    "train with a higher lora.r"
                )
            chosen = U[:, -last : U.shape[1] - self.skip] if self.bottom else U[:, self.skip : last]
            found[layer] = LayerDirections(chosen.clone(), S)
        return Directions({}, {"skip": str(self.skip)}, found)

    def _chosen(self, spectra: dict[str, "Written"]) -> int:
        floor = residual_spectra(read_adapter(self.floor)) if self.floor is not None else None
        return chosen_k(
            {layer: each.S for layer, each in spectra.items()},
            None if floor is None else {layer: each.S for layer, each in floor.items()},
        )


@dataclass
class LayerConsensus(Identification):
    """The k directions of the residual stream on which most writers agree, whatever the size of their updates.

    At layer l: the top eigenvectors of the mean projector sum_i u_i u_i^T / n over the first left singular vectors u_i
    of the n writers of layers 0 to l. An eigenvalue of 1 would mean that all write the same direction, 1 / n that none
    of them does.

    Source:
        Own.
    """

    filters = True
    k: int = 1
    """Directions a layer; at layer 0 there are as many as writers."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Find them; S holds the square roots of the eigenvalues.

        Args:
            adapter: a trained adapter with writers among its sites.

        Raises:
            GrasplError: it has none, or fewer than k.
        """
        found, tops = {}, []
        for layer, sites in _writers(adapter).items():
            tops += [_decomposed(site).U[:, 0] for site in sites]
            U, S, _ = torch.linalg.svd(torch.stack(tops, dim=1) / len(tops) ** 0.5, full_matrices=False)
            if not 1 <= self.k <= U.shape[1]:
                raise GrasplError(
                    f"method.k: {self.k} directions, but {layer} and those before have {len(tops)} writers"
                )
            found[layer] = LayerDirections(U[:, : self.k].contiguous(), S)
        return Directions({}, {}, found)


@dataclass
class RandomLayerDirections(Identification):
    """Random orthonormal directions of the residual stream: a control that every claim must beat."""

    k: int = 8
    """Directions a layer."""
    seed: int = 0
    """Of the directions."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Draw them; S is all ones.

        Raises:
            GrasplError: k is more than the stream is wide.
        """
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for layer, sites in _writers(adapter).items():
            hidden = sites[0].shape[0]
            if not 1 <= self.k <= hidden:
                raise GrasplError(f"method.k: {self.k} directions do not fit into a stream of width {hidden}")
            D = random_basis(hidden, self.k, generator)
            found[layer] = LayerDirections(D, torch.ones(self.k))
        return Directions({}, {"seed": str(self.seed)}, found)


def random_basis(hidden: int, k: int, generator: torch.Generator) -> Float[Tensor, "hidden k"]:
    """Return k random orthonormal directions, (hidden, k), on the CPU."""
    return torch.linalg.qr(torch.randn(hidden, k, generator=generator))[0]


class Written(NamedTuple):
    """What a layer writes to the residual stream, decomposed."""

    U: Float[Tensor, "hidden m"]
    """(hidden, m) left singular vectors of the writers' updates side by side."""
    S: Float[Tensor, " m"]
    """(m,) singular values, descending; zeros are left out."""


def residual_spectra(adapter: AdapterFolder) -> dict[str, Written]:
    """Return the decomposition of what each layer writes to the stream.

    [dW_1 dW_2] = [U_1 S_1, U_2 S_2] blockdiag(V_1, V_2)^T, whose last factor has orthonormal rows: the left singular
    vectors and values are those of [U_1 S_1, U_2 S_2], (hidden, sum of ranks).

    Args:
        adapter: a trained adapter with writers among its sites.

    Raises:
        GrasplError: it has none, or its update is zero.
    """
    found = {}
    for layer, sites in _writers(adapter).items():
        parts = [_decomposed(site) for site in sites]
        U, S, _ = torch.linalg.svd(torch.cat([part.U * part.S for part in parts], dim=1), full_matrices=False)
        rank = int((S[0] * 1e-6 < S).sum())  # beyond it vectors mean nothing
        found[layer] = Written(U[:, :rank], S[:rank])
    return found


def _decomposed(site: Site) -> ThinSVD:
    parts = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name)
    if parts.S[0] == 0:
        raise GrasplError(f"{site.name}: the update is zero; identify from a trained adapter")
    return parts


def _writers(adapter: AdapterFolder) -> dict[str, list[Site]]:
    found = writers_by_layer(adapter.sites)
    bare = next((layer for layer, sites in found.items() if not sites), None)
    if bare is not None or not found:
        raise GrasplError(
            f"{adapter.path}: {bare or 'the adapter'} has no site that writes to the residual stream; train with o_proj and "
            "down_proj among lora.target_modules"
        )
    return found


def writers_agree(adapter: AdapterFolder) -> dict[str, float]:
    """Return how far a layer's writers write one direction: mean squared cosine of their first left singular vectors.

    Args:
        adapter: a trained adapter with writers among its sites.

    Returns:
        By layer, 0..1; 1 for a layer with a single writer.

    Raises:
        GrasplError: it has no writers, or its update is zero.
    """
    found = {}
    for layer, sites in _writers(adapter).items():
        tops = torch.stack([_decomposed(site).U[:, 0] for site in sites])  # (n, hidden)
        cosines = (tops @ tops.mT).square()
        n = len(tops)
        found[layer] = float((cosines.sum() - n) / (n * (n - 1))) if n > 1 else 1.0
    return found
