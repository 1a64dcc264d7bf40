"""A start that reads given directions alone."""

import pytest
import torch
from fits import adam, factors, save

from graspl.adapters import LoraOptions, read_adapter
from graspl.directions import Directions
from graspl.errors import GrasplError
from graspl.starts import DirectionsStart, FrozenStart

SAME = {"optimizer": adam, "lora": LoraOptions(r=2)}


def outside(site, V):
    """Return the share of an update that reads outside the span of V, 0..1."""
    update = (site.scaling * site.B @ site.A).detach()
    return float((update - update @ V @ V.mT).norm() / update.norm())


def test_the_update_reads_only_the_given_directions(fit, directions, tmp_path):
    module, _ = fit(start=DirectionsStart(), directions=directions, **SAME)
    given = Directions.load(directions)
    for site in read_adapter(save(module, tmp_path / "adapter")).sites:
        V = given.sites[site.name].V[:, :2]
        torch.testing.assert_close(site.A, V.mT.contiguous(), rtol=0, atol=0)
        assert site.B.any()
        assert outside(site, V) <= 1e-5


def test_a_trained_a_leaves_the_span(fit, directions):
    """A positive control, and the reason why A is frozen."""
    module, _ = fit(start=DirectionsStart(train_A=True), directions=directions, **SAME)
    given = Directions.load(directions)
    assert max(outside(site, given.sites[site.name].V[:, :2]) for site in module.sites) > 1e-2


def test_a_fit_goes_on_from_where_it_was(fit, directions, tmp_path):
    """The start is set once: a resumed fit keeps its A, also where that has been trained."""
    given = SAME | {"start": DirectionsStart(train_A=True), "directions": directions}
    whole, _ = fit(lightning={"max_steps": 4}, **given)
    _, half = fit(lightning={"max_steps": 2}, **given)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(lightning={"max_steps": 4, "ckpt_path": str(tmp_path / "half.ckpt")}, **given)
    assert torch.equal(factors(whole), factors(resumed))


def test_too_few_directions_for_the_rank_are_refused(fit, directions):
    with pytest.raises(GrasplError):
        fit(start=DirectionsStart(), directions=directions, optimizer=adam, lora=LoraOptions(r=4))


def test_it_needs_directions(fit):
    with pytest.raises(GrasplError, match=r"model\.directions: DirectionsStart needs directions"):
        fit(start=DirectionsStart(), **SAME)


def test_a_start_is_not_shared_between_modules(model_folder):
    from graspl.methods import LoRALitModule

    start = FrozenStart()
    module = LoRALitModule(base_model=str(model_folder()), start=start)
    assert module.start is not start
    assert not module.start.train_A
