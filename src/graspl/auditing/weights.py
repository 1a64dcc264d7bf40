"""What an adapter's weights say without its base model."""

import math
from pathlib import PurePath
from statistics import fmean
from typing import Any, NamedTuple

from graspl.adapters import AdapterFolder, thin_svd
from graspl.adapters.subspaces import SharedSubspace, shared_subspace
from graspl.directions import Directions, effective_rank, reliance
from graspl.errors import GrasplError


class SiteFacts(NamedTuple):
    """The spectrum of one site's update."""

    norm: float  # ||dW||_F
    share: float  # Of the first singular value, sigma_1 / ||dW||_F, 0..1; 0 for an update of zero
    effective_rank: float  # exp of the spectrum's entropy; 0 for an update of zero
    singular_values: list[float]  # Descending


class Along(NamedTuple):
    """Reliance on one set of directions."""

    k: int  # Directions a site or layer
    mean: float  # Of rho over sites, 0..1
    highest: float  # Of rho over sites, 0..1
    chance: float  # What random directions would give: the mean over sites of sqrt(k / out)
    sites: dict[str, float]  # rho by site


class Shared(NamedTuple):
    """What two adapters have in common, as means over their common sites."""

    cosine: float  # Of the two updates as vectors, -1..1
    left: float  # Mean squared cosine of the angles between their leading output directions, 0..1
    right: float  # The same of the input directions
    chance: float  # What `left` would be for random subspaces
    sites: dict[str, SharedSubspace]  # By site

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {**self._asdict(), "sites": {name: vars(site) for name, site in self.sites.items()}}


def site_facts(adapter: AdapterFolder) -> dict[str, SiteFacts]:
    """Return every site's spectrum.

    Raises:
        NonFiniteAdapterError: a factor has NaN or inf.
    """
    found = {}
    for site in adapter.sites:
        S = thin_svd(site.B, site.A, site.scaling, site=f"{adapter.path}: {site.name}").S
        norm = float(S.norm())
        trained = norm > 0
        found[site.name] = SiteFacts(
            norm, float(S[0]) / norm if trained else 0.0, effective_rank(S) if trained else 0.0, S.tolist()
        )
    return found


def along(adapter: AdapterFolder, directions: Directions, origin: str) -> Along:
    """Return how much of what an adapter writes lies along directions, at the sites that both have.

    Raises:
        GrasplError: they were found on another base model, or have no site or layer in common with the adapter.
    """
    try:
        directions.require_base_model(adapter.base_model)
        names = {site.name for site in adapter.sites} & set(directions.sites)
        sites = [site for site in adapter.sites if not directions.sites or site.name in names]
        common = {name: each for name, each in directions.sites.items() if name in names}
        if directions.sites and not common:
            raise GrasplError("no site in common with the adapter; give directions of this base model")
        kept = Directions(common, directions.metadata, directions.layers if not common else {})
        k = kept.width("U") if common else kept.width("D")
        rho = {name: each["rho"] for name, each in reliance(kept, sites, k=k).items() if "rho" in each}
    except GrasplError as error:
        raise GrasplError(f"{origin}: {error}") from error
    if not rho:
        raise GrasplError(f"{origin}: no site of the adapter writes where these directions lie")
    out = {site.name: site.shape[0] for site in adapter.sites}
    chance = fmean(math.sqrt(min(1.0, k / out[name])) for name in rho)
    return Along(k, fmean(rho.values()), max(rho.values()), chance, rho)


def shared(ours: AdapterFolder, theirs: AdapterFolder, *, k: int) -> Shared:
    """Compare two adapters of one base model site by site: their updates, and k leading singular directions each.

    Raises:
        GrasplError: they have no site in common, or a site has another shape.
    """
    known = {site.name: site for site in theirs.sites}
    pairs = [(site, known[site.name]) for site in ours.sites if site.name in known]
    if not pairs:
        raise GrasplError(f"{theirs.path}: has no site in common with {ours.path}; give one of its model")
    odd = next((site.name for site, other in pairs if site.shape != other.shape), None)
    if odd is not None:
        raise GrasplError(f"{theirs.path}: {odd} has another shape; give adapters of one base model")
    found = {site.name: shared_subspace(site, other, k=k) for site, other in pairs}
    return Shared(
        fmean(each.cosine for each in found.values()),
        fmean(_mean_square(each.left) for each in found.values()),
        fmean(_mean_square(each.right) for each in found.values()),
        fmean(each.chance for each in found.values()),
        found,
    )


def _mean_square(cosines: list[float]) -> float:
    return fmean(cosine**2 for cosine in cosines)


def beside(adapter: AdapterFolder, reference: AdapterFolder, *, k: int = 4) -> Shared:
    """Compare an adapter with a reference of the same base model, e.g. a naive fit that spilled over (see `shared`).

    Raises:
        GrasplError: the reference has another base model, no site in common, or a site of another shape.
    """
    if PurePath(adapter.base_model).name != PurePath(reference.base_model).name:
        raise GrasplError(f"reference: {reference.path} is of another base model, {reference.base_model}")
    return shared(adapter, reference, k=k)
