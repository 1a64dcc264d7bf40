"""Parts in one module: what goes together, and what is refused before anything is computed."""

import json
from itertools import permutations

import pytest
import torch
from fits import adam, attached, batch_of, factors, gradients

from graspl.adapters import LoraOptions, pair_reliance, read_reliance
from graspl.adapters.loss import summed_loss
from graspl.constraints import (
    ActivationConstraint,
    PairConstraint,
    ReadConstraint,
    ResidualConstraint,
    WriteConstraint,
)
from graspl.directions import Directions, LayerSingular
from graspl.edits import Ablate, Cut, Push
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule, LoRALitModule, ThrowAwayFit
from graspl.methods.parts import parts_of
from graspl.penalties import FeaturePenalty, KLPenalty, OrthogonalityPenalty
from graspl.starts import DirectionsStart, FrozenStart
from graspl.transforms import Scale, Subtract


def refused(error):
    """Return an error's text, after a look that it is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def test_grasp_without_constraints_is_refused():
    with pytest.raises(GrasplError, match="constraints: none is named") as error:
        GRASPLitModule(base_model="organism", constraints=[])
    refused(error)


@pytest.mark.parametrize(
    "constraints",
    [
        [WriteConstraint(), ResidualConstraint()],
        [PairConstraint(), WriteConstraint()],
        [ReadConstraint(), ResidualConstraint(read=True)],
    ],
)
def test_two_constraints_on_one_factor_are_refused(constraints):
    for each in permutations(constraints):
        with pytest.raises(GrasplError, match=r"constraints: .* both project [AB]") as error:
            GRASPLitModule(base_model="organism", constraints=list(each))
        text = refused(error)
        assert all(type(constraint).__name__ in text for constraint in each)


@pytest.mark.parametrize("first", ["read", "pair"])
def test_read_and_pair_hold_together_in_any_order(fit, directions, first):
    order = [ReadConstraint(k=1), PairConstraint(k=2)][:: 1 if first == "read" else -1]
    naive, _ = fit(optimizer=adam)
    module, _ = fit(GRASPLitModule, constraints=order, directions=directions, optimizer=adam)
    given = Directions.load(directions)

    def found(fitted):
        for site in fitted.sites:
            d, B, A = given.sites[site.name], site.B.detach(), site.A.detach()
            yield read_reliance(B, A, d.V[:, :1]), pair_reliance(B, A, d.U[:, :2], d.V[:, :2])

    read, pair = zip(*found(module), strict=True)
    assert max(read) <= 1e-5
    assert max(pair) <= 1e-5
    assert max(map(max, found(naive))) > 1e-2  # positive control


NEEDY = {
    "constraints": [WriteConstraint()],
    "edits": [Ablate()],
    "penalties": [OrthogonalityPenalty()],
    "transforms": [Subtract(WriteConstraint())],
    "start": DirectionsStart(),
}


@pytest.mark.parametrize("kind", [kind for kind in NEEDY if kind != "constraints"])
def test_a_part_without_the_directions_that_it_needs_is_refused(fit, kind):
    part = NEEDY[kind] if kind == "start" else NEEDY[kind][0]
    with pytest.raises(
        GrasplError, match=rf"model\.directions: {type(part).__name__} needs directions"
    ) as error:
        fit(**{kind: NEEDY[kind]})
    assert "ThrowAwayFit" in refused(error)


@pytest.mark.parametrize("edit", [Ablate(), Ablate(during="inference"), Cut(), Push()])
def test_every_edit_needs_directions_in_a_fit(edit):
    module = LoRALitModule(base_model="organism", edits=[edit])
    with pytest.raises(GrasplError, match=f"{type(edit).__name__} needs directions"):
        module.setup("fit")


def test_directions_that_no_part_uses_are_refused(fit):
    parts = {"penalties": [KLPenalty()], "transforms": [Scale()], "start": FrozenStart()}
    for each in ({}, parts):
        with pytest.raises(GrasplError, match=r"model\.directions: no part uses ThrowAwayFit") as error:
            fit(directions=ThrowAwayFit(), **each)
        refused(error)


def test_a_directions_file_may_be_for_validation_alone(fit, layer_directions):
    naive, _ = fit(optimizer=adam)
    module, _ = fit(optimizer=adam, directions=layer_directions)
    assert torch.equal(factors(naive), factors(module))


def test_a_penalty_and_an_edit_act_in_one_fit(fit, layer_directions):
    same = {"optimizer": adam, "lora": LoraOptions(r=4)}
    edits = {"edits": [Ablate(k=1), Cut(k=2)], "directions": layer_directions}
    penalties = {"penalties": [KLPenalty(weight=3.0), FeaturePenalty(weight=2.0)]}
    module, trainer = fit(**same, **edits, **penalties)
    alone = [fit(**same, **each)[0] for each in ({}, edits, penalties)]
    assert all(not torch.equal(factors(module), factors(each)) for each in alone)
    # By hand: the logits are those of the ablated stream, the base model's are whole
    batch = batch_of(trainer)
    module.model.train()
    module.on_train_start()
    found = gradients(module, module.training_step(batch, 0))
    logits = module(batch)
    module.attached.detach()
    base = module.base_forward(batch)
    attached(module)
    places = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    p, q = logits.log_softmax(-1), base.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1)[places].mean()
    features = module.penalties[1].term(module, batch, logits)
    loss, tokens = summed_loss(logits, batch["labels"])
    by_hand = gradients(module, loss + tokens * (3.0 * divergence + 2.0 * features))
    module.teardown("fit")
    torch.testing.assert_close(found * 256, by_hand, atol=1e-5, rtol=1e-4)


def test_the_parts_are_named(model_folder):
    base = str(model_folder())
    assert parts_of(LoRALitModule(base_model=base)) == {}
    module = LoRALitModule(
        base_model=base, penalties=[KLPenalty()], edits=[Ablate(), Cut()], transforms=[Scale()],
        start=FrozenStart(),
    )  # fmt: skip
    assert parts_of(module) == {
        "penalties": ["KLPenalty"], "edits": ["Ablate", "Cut"], "transforms": ["Scale"], "start": ["FrozenStart"],
    }  # fmt: skip
    assert parts_of(GRASPLitModule(base_model=base)) == {
        "constraints": ["ActivationConstraint", "ResidualConstraint"]
    }


def test_an_evaluation_says_of_what_parts_the_fit_was(graspl, chat_options, tmp_path):
    found = {}
    for name, parts in {
        "naive": (),
        "kl": ("--model.penalties+=graspl.penalties.KLPenalty", "--model.penalties.weight=2"),
    }.items():
        folder = str(tmp_path / name)
        code, _, err = graspl("fit", *chat_options(**{"trainer.default_root_dir": folder}), *parts)
        assert code == 0, err
        code, _, err = graspl("validate", f"--config={folder}/config.yaml")
        assert code == 0, err
        found[name] = json.loads((tmp_path / name / "evaluation.json").read_text())["parts"]
    assert found == {"naive": {}, "kl": {"penalties": ["KLPenalty"]}}


def test_the_base_model_is_required(graspl, chat_options):
    options = [each for each in chat_options() if not each.startswith("--model.base_model")]
    code, _, err = graspl("fit", *options)
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert [line for line in lines if "base_model" in line] == lines[-1:]
    assert len(lines) == 2  # The first one says that PyTorch is loaded


def test_the_throw_away_fit_of_one_module_is_left_as_it_is(fit):
    """A module's parts are copies, so that one instance can be used in several fits."""
    source = ThrowAwayFit(LayerSingular(k=2), steps=2)
    constraint = ActivationConstraint(k=2)
    one, _ = fit(GRASPLitModule, directions=source, constraints=[constraint], optimizer=adam)
    two, _ = fit(GRASPLitModule, directions=source, constraints=[constraint], optimizer=adam)
    assert torch.equal(factors(one), factors(two))
    assert one.constraints[0] is not constraint
