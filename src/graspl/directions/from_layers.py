"""Identification of layers' directions from what an adapter writes to the residual stream."""

from dataclasses import dataclass

import torch

from graspl.adapters import AdapterFolder, Site, read_adapter, writers_by_layer
from graspl.adapters.residual import WRITERS
from graspl.directions.basis import Directions
from graspl.directions.dimension import chosen_k
from graspl.directions.file import LayerDirections
from graspl.directions.from_weights import random_basis, trained_svd
from graspl.directions.identify import Identification, leading
from graspl.errors import GrasplError


@dataclass
class LayerSingular(Identification):
    """The top-k left singular vectors of what each layer writes to the residual stream.

    The updates of the layer's writers (attention output and MLP down-projection) stand side by side, [dW_1 dW_2], so
    k is at most the sum of their ranks.

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
        """Decompose what the writers of every layer write."""
        found, spectra = {}, residual_spectra(adapter)
        k = self._chosen(spectra) if self.k is None else self.k
        for layer, (U, S) in spectra.items():
            taken = leading(U.shape[1], f"what {layer} writes", k=k, skip=self.skip)
            # From the last one backwards: the columns keep their order
            chosen = U.flip(1)[:, taken].flip(1) if self.bottom else U[:, taken]
            found[layer] = LayerDirections(chosen.clone(), S)
        return Directions({}, {"skip": str(self.skip)}, found)

    def _chosen(self, spectra: dict[str, LayerDirections]) -> int:
        floor = residual_spectra(read_adapter(self.floor)) if self.floor is not None else {}
        ours, theirs = ({layer: each.S for layer, each in found.items()} for found in (spectra, floor))
        return chosen_k(ours, theirs or None)


@dataclass
class LayerConsensus(Identification):
    """The k directions of the residual stream on which most writers agree, whatever the size of their updates.

    At layer l: the top eigenvectors of the mean projector sum_i u_i u_i^T / n over the first left singular vectors u_i
    of the n writers of layers 0 to l. An eigenvalue of 1 means that all write the same direction.

    Source:
        Own.
    """

    filters = True
    k: int = 1
    """Directions a layer; layer 0 has as many as it has writers."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Find them; S holds the square roots of the eigenvalues."""
        found, tops = {}, []
        for layer, sites in _writers(adapter).items():
            tops += [trained_svd(site).U[:, 0] for site in sites]
            U, S, _ = torch.linalg.svd(torch.stack(tops, dim=1) / len(tops) ** 0.5, full_matrices=False)
            taken = leading(U.shape[1], f"the writers up to {layer}", k=self.k)
            found[layer] = LayerDirections(U[:, taken], S)
        return Directions({}, {}, found)


@dataclass
class RandomLayerDirections(Identification):
    """Random orthonormal directions of the residual stream: a control that every claim must beat."""

    k: int = 8
    """Directions a layer."""
    seed: int = 0
    """Of the random numbers."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Draw them; S is all ones."""
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for layer, sites in _writers(adapter).items():
            hidden = sites[0].shape[0]
            leading(hidden, f"the stream after {layer}", k=self.k)
            found[layer] = LayerDirections(random_basis(hidden, self.k, generator), torch.ones(self.k))
        return Directions({}, {"seed": str(self.seed)}, found)


def residual_spectra(adapter: AdapterFolder) -> dict[str, LayerDirections]:
    """Return by layer the left singular vectors (hidden, m) and values (m,), without zeros, of what it writes to the stream.

    [dW_1 dW_2] = [U_1 S_1, U_2 S_2] blockdiag(V_1, V_2)^T, whose last factor has orthonormal rows: the left singular
    vectors and values are those of [U_1 S_1, U_2 S_2], (hidden, sum of ranks).

    Raises:
        GrasplError: the adapter has no writers, or its update is zero.
    """
    found = {}
    for layer, sites in _writers(adapter).items():
        parts = [trained_svd(site) for site in sites]
        U, S, _ = torch.linalg.svd(torch.cat([part.U * part.S for part in parts], dim=1), full_matrices=False)
        rank = int((S[0] * 1e-6 < S).sum())  # vectors after it are noise
        found[layer] = LayerDirections(U[:, :rank], S[:rank])
    return found


def _writers(adapter: AdapterFolder) -> dict[str, list[Site]]:
    found = writers_by_layer(adapter.sites)
    bare = next((layer for layer, sites in found.items() if not sites), None)
    if bare is not None or not found:
        fix = f"adapt one of {', '.join(WRITERS)} too, or find directions by site (TopSingular)"
        raise GrasplError(f"{adapter.path}: no site writes to the stream in {bare or 'any layer'}; {fix}")
    return found


def writers_agree(adapter: AdapterFolder) -> dict[str, float]:
    """Return by layer the mean squared cosine, 0..1, of its writers' first left singular vectors; 1 for a single writer."""
    found = {}
    for layer, sites in _writers(adapter).items():
        tops = torch.stack([trained_svd(site).U[:, 0] for site in sites])  # (n, hidden)
        cosines = (tops @ tops.mT).square()
        n = len(tops)
        found[layer] = float((cosines.sum() - n) / (n * (n - 1))) if n > 1 else 1.0
    return found
