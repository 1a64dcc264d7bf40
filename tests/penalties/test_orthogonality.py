"""The orthogonality penalty."""

import pytest
from fits import adam

from graspl.directions import Directions
from graspl.errors import GrasplError
from graspl.penalties import OrthogonalityPenalty


@pytest.mark.parametrize("side", ["read", "write"])
def test_orthogonality_lowers_the_overlap(fit, directions, side):
    found = Directions.load(directions)

    def overlap(module):
        total = 0.0
        for site in module.sites:
            given = found.sites[site.name]
            part = site.A @ given.V[:, :1] if side == "read" else given.U[:, :1].mT @ site.B
            total += float(part.detach().square().sum())
        return total

    naive, _ = fit(optimizer=adam, lightning={"max_steps": 8})
    penalty = OrthogonalityPenalty(side=side, weight=100.0)
    held, _ = fit(optimizer=adam, directions=directions, penalties=[penalty], lightning={"max_steps": 8})
    assert overlap(held) < 0.8 * overlap(naive)


def test_it_needs_directions(fit):
    with pytest.raises(GrasplError, match=r"model\.directions: OrthogonalityPenalty needs directions"):
        fit(penalties=[OrthogonalityPenalty()])
