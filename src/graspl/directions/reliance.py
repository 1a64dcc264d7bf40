"""Reliance of a whole adapter on directions, site by site."""

from collections.abc import Sequence

from graspl.adapters import Site, pair_reliance, read_reliance, write_reliance, writers_by_layer
from graspl.directions.basis import Directions


def reliance(directions: Directions, sites: Sequence[Site], *, k: int) -> dict[str, dict[str, float]]:
    """Return each site's reliance, 0..1: `rho` (written along the directions), `rho_read` and `rho_pair`.

    Directions with one side give that side's figure. Layers' directions give `rho` of the sites that write to the residual
    stream.

    Raises:
        GrasplError: the directions are of another model.
    """
    if not directions.sites:
        writers = writers_by_layer(sites)
        bases = directions.layer_bases(list(writers), k=k)
        return {
            site.name: {"rho": write_reliance(site.B, site.A, D.to(site.B.device))}
            for D, written in zip(bases, writers.values(), strict=True)
            for site in written
        }
    found: dict[str, dict[str, float]] = {site.name: {} for site in sites}
    writes, reads = directions.width("U") >= k, directions.width("V") >= k
    left = directions.bases(sites, side="U", k=k) if writes else []
    right = directions.bases(sites, side="V", k=k) if reads else []
    for site, U in zip(sites, left, strict=False):
        found[site.name]["rho"] = write_reliance(site.B, site.A, U)
    for site, V in zip(sites, right, strict=False):
        found[site.name]["rho_read"] = read_reliance(site.B, site.A, V)
    for site, U, V in zip(sites, left, right, strict=False):
        found[site.name]["rho_pair"] = pair_reliance(site.B, site.A, U, V)
    return found
