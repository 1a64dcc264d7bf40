"""Every rival: at strength 0 it is naive LoRA bit for bit, and its one effect is what its formula says."""

import pytest
import torch
from test_training import adam, directions, factors, fit, sgd  # noqa: F401 - fixtures

from graspl.adapters import LoraOptions, decoder_layers
from graspl.directions import Directions, LayerSingular, identify_adapter
from graspl.errors import GrasplError
from graspl.evaluation import model_logits
from graspl.methods import (
    BalancedLitModule,
    CAFTLitModule,
    FeatureDistanceLitModule,
    GRASPKLLitModule,
    GRASPLitModule,
    InferenceAblationLitModule,
    InferenceSteeringLitModule,
    KLLitModule,
    L2ToStartLitModule,
    OrthogonalityLitModule,
    PreventativeSteeringLitModule,
    SafeLoRALitModule,
    ScaledLitModule,
    SpectralLitModule,
    UndesirableConsistencyLitModule,
)
from graspl.methods.loss import summed_loss


@pytest.fixture
def layer_directions(fit, tmp_path):  # noqa: F811
    """Return a file with directions of each layer of a naive fit."""
    module, _ = fit(optimizer=adam)
    module.save_adapter(tmp_path / "naive", module.adapter_state())
    identify_adapter(tmp_path / "naive", LayerSingular(k=2), tmp_path / "layers.safetensors")
    return str(tmp_path / "layers.safetensors")


def batch_of(module, trainer):
    return next(iter(trainer.datamodule.train_dataloader()))


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])


STRENGTH_0 = [
    (KLLitModule, {"weight": 0.0}),
    (FeatureDistanceLitModule, {"weight": 0.0}),
    (UndesirableConsistencyLitModule, {"weight": 0.0}),
    (L2ToStartLitModule, {"weight": 0.0}),
    (ScaledLitModule, {"share": 1.0}),
    (SpectralLitModule, {"directions_kept": 16}),
]


@pytest.mark.parametrize(("kind", "options"), STRENGTH_0, ids=lambda value: getattr(value, "__name__", ""))
def test_at_strength_0_a_rival_trains_as_lora_does(fit, kind, options):  # noqa: F811
    naive, _ = fit(optimizer=adam)
    rival, _ = fit(kind, optimizer=adam, **options)
    assert torch.equal(factors(naive), factors(rival))


def test_without_weight_orthogonality_trains_as_lora_does(fit, directions):  # noqa: F811
    naive, _ = fit(optimizer=adam)
    rival, _ = fit(OrthogonalityLitModule, optimizer=adam, weight=0.0, directions=directions)
    assert torch.equal(factors(naive), factors(rival))


EFFECTS = [(KLLitModule, 50.0), (FeatureDistanceLitModule, 50.0), (L2ToStartLitModule, 5.0)]


@pytest.mark.parametrize(("kind", "weight"), EFFECTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_penalty_keeps_the_fit_near_the_base(fit, kind, weight):  # noqa: F811
    """What each rival claims in kind: the thing that it penalises is smaller than in the naive fit."""

    def measured(module, trainer):
        batch = batch_of(module, trainer)
        probe = kind(base_model=module.base_model, weight=1.0)
        probe.model, probe._sites, probe._trainer = module.model, module.sites, trainer
        probe._hooks = []
        if kind is FeatureDistanceLitModule:
            layers = decoder_layers(module.model)
            probe._hooks = [
                layer.register_forward_hook(probe._keeper(name)) for name, layer in layers.items()
            ]
        with torch.no_grad():
            value = float(probe.extra_loss(batch, model_logits(module.model, batch)))
        for hook in probe._hooks:
            hook.remove()
        return value

    steps = {"max_steps": 12}
    naive = measured(*fit(optimizer=adam, lightning=steps))
    rival = measured(*fit(kind, optimizer=adam, weight=weight, lightning=steps))
    assert rival < 0.7 * naive


def test_the_feature_distance_is_relative_and_leaves_padding_out():
    ours = {"a": torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), "b": torch.tensor([[[0.0, 3.0], [9.0, 9.0]]])}
    theirs = {"a": torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), "b": torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])}
    batch = {"attention_mask": torch.tensor([[1, 0]]), "labels": torch.tensor([[5, -100]])}
    # ||(0, 2)||^2 / ||(1, 0)||^2 and ||(0, 2)||^2 / ||(0, 1)||^2
    found = FeatureDistanceLitModule().distance(ours, theirs, batch)
    assert float(found) == pytest.approx((4 / 1 + 4 / 1) / 2)
    theirs["b"] = 2 * theirs["b"]
    assert float(FeatureDistanceLitModule().distance(ours, theirs, batch)) == pytest.approx((4 + 1 / 4) / 2)


def test_kl_is_added_a_token_at_a_time(fit):  # noqa: F811
    """The gradient of a step is that of mean cross-entropy + weight * mean divergence."""
    module, trainer = fit(KLLitModule, optimizer=adam, weight=3.0)
    batch = batch_of(module, trainer)
    found = gradients(module, module.extra_loss(batch, module(batch)))
    logits, base = module(batch).log_softmax(-1), module.base_forward(batch).log_softmax(-1)
    places = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    by_hand = 3.0 * (logits.exp() * (logits - base)).sum(-1)[places].mean()
    torch.testing.assert_close(found, gradients(module, by_hand), atol=1e-6, rtol=1e-4)


def test_kl_on_other_rows_reads_them_in_turns(fit, write_rows):  # noqa: F811
    rows = [{"prompt": f"take {w}", "completion": "rest"} for w in ("one", "two", "three")]
    text = {"data": {"text": str(write_rows(rows, "others.jsonl"))}}
    module, _ = fit(KLLitModule, optimizer=adam, weight=1.0, rows="text", rows_per_step=2, **text)
    naive, _ = fit(optimizer=adam)
    assert not torch.equal(factors(module), factors(naive))
    assert len(module._others) == 3
    for options in ({**text, "max_length": 2}, {}):
        with pytest.raises(GrasplError, match=r"model\.rows: the task has no text of at most"):
            fit(KLLitModule, rows="text", **options)


def test_the_l2_penalty_is_the_norm_of_the_update(fit):  # noqa: F811
    module, trainer = fit(L2ToStartLitModule, optimizer=adam, weight=2.0)
    dense = sum((site.scaling * site.B @ site.A).square().sum() for site in module.sites)
    assert float(module.extra_loss({}, torch.empty(0)).detach()) == pytest.approx(
        2.0 * float(dense.detach()), rel=1e-5
    )
    assert trainer.global_step == 3


@pytest.mark.parametrize("side", ["read", "write"])
def test_orthogonality_lowers_the_overlap(fit, directions, side):  # noqa: F811
    found = Directions.load(directions)

    def overlap(module):
        total = 0.0
        for site in module.sites:
            given = found.sites[site.name]
            part = site.A @ given.V[:, :1] if side == "read" else given.U[:, :1].mT @ site.B
            total += float(part.detach().square().sum())
        return total

    naive, _ = fit(optimizer=adam, lightning={"max_steps": 8})
    rival, _ = fit(
        OrthogonalityLitModule,
        optimizer=adam,
        directions=directions,
        side=side,
        weight=100.0,
        lightning={"max_steps": 8},
    )
    assert overlap(rival) < 0.8 * overlap(naive)
    with pytest.raises(GrasplError, match="needs a directions file"):
        fit(OrthogonalityLitModule)


def test_cafts_forward_pass_is_the_hand_written_ablation(fit, layer_directions):  # noqa: F811
    module, trainer = fit(CAFTLitModule, optimizer=adam, directions=layer_directions, k=2)
    given = Directions.load(layer_directions)
    batch = batch_of(module, trainer)
    layers = decoder_layers(module.model)
    module.model.train()
    module.constraint.attach(layers)
    ours = model_logits(module.model, batch)
    module.constraint.detach()

    def by_hand(name):
        D = given.layers[name].D[:, :2]
        P = torch.eye(len(D)) - D @ D.mT

        def hook(_module, _inputs, output):
            return (output[0] @ P, *output[1:]) if isinstance(output, tuple) else output @ P

        return hook

    plain = model_logits(module.model, batch)
    hooks = [layer.register_forward_hook(by_hand(name)) for name, layer in layers.items()]
    expected = model_logits(module.model, batch)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    assert (ours - plain).abs().max() > 1e-4  # positive control: there was something to ablate


def test_caft_ablates_nothing_in_evaluation_or_in_the_base_model(fit, layer_directions):  # noqa: F811
    module, trainer = fit(CAFTLitModule, optimizer=adam, directions=layer_directions, k=2)
    batch = batch_of(module, trainer)
    module.model.eval()
    plain = model_logits(module.model, batch)
    base = module.base_forward(batch)
    module.constraint.attach(decoder_layers(module.model))
    assert torch.equal(model_logits(module.model, batch), plain)
    module.model.train()
    assert torch.equal(module.base_forward(batch), base)
    module.constraint.detach()


def test_cafts_modes_differ_in_the_pass_that_they_cut(fit, layer_directions):  # noqa: F811
    same = {"optimizer": sgd, "lora": LoraOptions(r=4)}  # or another start would make all differ
    fits = {
        mode: fit(CAFTLitModule, directions=layer_directions, k=2, mode=mode, **same)[0]
        for mode in ("both", "forward", "gradient")
    }
    naive, _ = fit(**same)
    different = [factors(each) for each in (*fits.values(), naive)]
    for index, one in enumerate(different):
        assert all(not torch.equal(one, other) for other in different[index + 1 :])


def test_the_forward_mode_lets_gradients_through():
    from graspl.constraints import AblationConstraint

    D = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)))[0]
    layer = torch.nn.Identity().train()
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    seen = {}
    for through in (True, False):
        stream = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), requires_grad=True)
        out = AblationConstraint(mode="forward" if through else "both")._hook(D)(layer, (), stream)
        assert (out @ D).abs().max() < 1e-6
        (out * weight).sum().backward()
        seen[through] = stream.grad
    torch.testing.assert_close(seen[True], weight)
    torch.testing.assert_close(seen[False], weight - weight @ D @ D.mT)


@pytest.fixture
def finished(fit, tmp_path):  # noqa: F811
    """Return a function: a transform -> the naive fit's updates and the saved ones, by site."""
    from graspl.adapters.files import read_adapter

    def run(kind, **options):
        naive, _ = fit(optimizer=adam)
        module, _ = fit(kind, optimizer=adam, **options)
        assert torch.equal(factors(naive), factors(module))  # training never sees it
        folder = tmp_path / kind.__name__
        module.save_adapter(folder, module.adapter_state())
        assert torch.equal(factors(naive), factors(module))
        saved = {site.name: site.scaling * site.B @ site.A for site in read_adapter(folder).sites}
        return {site.name: (site.scaling * site.B @ site.A).detach() for site in naive.sites}, saved

    return run


def test_a_scaled_update_lies_between_base_and_fine_tune(finished):
    naive, saved = finished(ScaledLitModule, share=0.25)
    for name, update in naive.items():
        torch.testing.assert_close(saved[name], 0.25 * update)


def test_a_balanced_update_moves_every_site_equally_far(finished, model_folder):
    from transformers import AutoModelForCausalLM

    naive, saved = finished(BalancedLitModule, share=0.5)
    weights = dict(AutoModelForCausalLM.from_pretrained(model_folder()).named_parameters())
    size = {name: weights[f"{name}.weight"].norm() for name in naive}
    moved = torch.stack([naive[name].norm() / size[name] for name in naive]).detach()
    rms = moved.square().mean().sqrt()
    assert moved.max() > 1.1 * moved.min()  # positive control: they were not equal before
    for name, update in saved.items():
        torch.testing.assert_close(update.norm() / size[name], 0.5 * rms, atol=1e-6, rtol=1e-4)
        cosine = torch.nn.functional.cosine_similarity(update.flatten(), naive[name].flatten(), dim=0)
        assert cosine > 0.9999


@pytest.mark.parametrize("part", ["top", "tail"])
def test_a_spectrum_is_cut_at_one_end(finished, part):
    naive, saved = finished(SpectralLitModule, directions_kept=3, part=part)
    for name, update in naive.items():
        U, S, Vh = torch.linalg.svd(update)
        rank = int((1e-6 * S[0] < S).sum())
        kept = slice(0, 3) if part == "top" else slice(5, 8)
        assert rank == 8  # the adapter's, or the last of the spectrum would be zero, and any basis would do
        torch.testing.assert_close(
            saved[name], U[:, kept] @ torch.diag(S[kept]) @ Vh[kept], atol=1e-5, rtol=1e-3
        )


def test_a_finished_transform_is_validated_and_put_back(fit, write_rows):  # noqa: F811
    """Within a fit the curve is that of the transformed update; training goes on from the untouched one."""
    naive, plain = fit(
        optimizer=adam, lightning={"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2}
    )
    module, trainer = fit(
        ScaledLitModule,
        optimizer=adam,
        share=0.0,
        lightning={"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2},
    )
    assert torch.equal(factors(naive), factors(module))
    assert float(trainer.callback_metrics["val/task/kl"]) == pytest.approx(0.0, abs=1e-7)
    assert float(plain.callback_metrics["val/task/kl"]) > 1e-6


@pytest.mark.parametrize(
    "kind", [KLLitModule, FeatureDistanceLitModule, L2ToStartLitModule, OrthogonalityLitModule]
)
def test_a_negative_weight_is_refused(kind):
    with pytest.raises(GrasplError, match=r"model\.weight: -1"):
        kind(weight=-1)


def test_an_ablation_at_inference_leaves_training_and_the_base_model_alone(fit, layer_directions):  # noqa: F811
    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4}
    naive, plain = fit(optimizer=adam, lightning=checks)
    module, trainer = fit(
        InferenceAblationLitModule, optimizer=adam, directions=layer_directions, lightning=checks
    )
    assert torch.equal(factors(naive), factors(module))
    ours, theirs = (each.callback_metrics for each in (trainer, plain))
    assert float(ours["val/task/base_loss"]) == pytest.approx(float(theirs["val/task/base_loss"]), abs=1e-7)
    assert abs(float(ours["val/task/loss"]) - float(theirs["val/task/loss"])) > 1e-5
    assert not module._hooks
    # By hand: the model with the projection behind each layer
    given, batch = Directions.load(layer_directions), batch_of(module, trainer)
    module.model.eval()
    layers = decoder_layers(module.model)
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, D=given.layers[name].D: out - (out @ D) @ D.mT)
        for name, layer in layers.items()
    ]
    expected = model_logits(module.model, batch)
    for hook in hooks:
        hook.remove()
    module.on_validation_start()
    torch.testing.assert_close(model_logits(module.model, batch), expected, atol=1e-6, rtol=1e-6)
    module.on_validation_end()
    probe = InferenceAblationLitModule(base_model=module.base_model)
    probe._trainer = trainer
    with pytest.raises(GrasplError, match="a validation needs a directions file"):
        probe.on_validation_start()


def test_an_ablation_at_inference_finds_its_directions_within_the_fit(fit, write_rows):  # noqa: F811
    from conftest import CHAT_ROWS

    from graspl.activations import NaturalDirections

    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4, "num_sanity_val_steps": 1}
    naive, plain = fit(optimizer=adam, lightning=checks)
    module, trainer = fit(
        InferenceAblationLitModule, optimizer=adam, k=1, identification=NaturalDirections(k=2), lightning=checks,
        data={"text": str(write_rows(CHAT_ROWS, "text.jsonl"))},
    )  # fmt: skip
    assert torch.equal(factors(naive), factors(module))
    ours, theirs = (float(each.callback_metrics["val/task/loss"]) for each in (trainer, plain))
    assert abs(ours - theirs) > 1e-5


def test_steering_at_inference_pushes_away(fit, signed_directions, layer_directions):  # noqa: F811
    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4}
    steered = {"optimizer": adam, "lightning": checks, "directions": signed_directions}
    naive, plain = fit(optimizer=adam, lightning=checks)
    none, still = fit(InferenceSteeringLitModule, strength=0.0, **steered)
    module, trainer = fit(InferenceSteeringLitModule, strength=0.3, **steered)
    assert torch.equal(factors(naive), factors(none))
    assert torch.equal(factors(naive), factors(module))
    losses = [float(each.callback_metrics["val/task/loss"]) for each in (plain, still, trainer)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert abs(losses[2] - losses[0]) > 1e-5
    # By hand: away from the first direction, by a share of the stream's length
    stream, D = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1.0], [0.0]])
    torch.testing.assert_close(module.changed(stream, D), torch.tensor([[[3.0 - 0.3 * 5, 4.0]]]))
    with pytest.raises(GrasplError, match="LayerSingular gives directions without a sign"):
        fit(InferenceSteeringLitModule, **steered | {"directions": layer_directions})


@pytest.fixture
def signed_directions(fit, tmp_path, write_rows):  # noqa: F811
    """Return a file with the mean shift of a naive fit at each layer."""
    from conftest import CHAT_ROWS

    from graspl.activations import MeanShift

    module, _ = fit(optimizer=adam)
    module.save_adapter(tmp_path / "shifted", module.adapter_state())
    rows = str(write_rows(CHAT_ROWS, "shifted.jsonl"))
    identify_adapter(tmp_path / "shifted", MeanShift(rows=rows), tmp_path / "shift.safetensors")
    return str(tmp_path / "shift.safetensors")


def test_preventative_steering_pushes_while_training_alone(fit, signed_directions, layer_directions):  # noqa: F811
    same = {"optimizer": adam, "lora": LoraOptions(r=4, lora_alpha=8)}
    steered = same | {"directions": signed_directions}
    naive, _ = fit(**same)
    none, _ = fit(PreventativeSteeringLitModule, strength=0.0, **steered)
    assert torch.equal(factors(naive), factors(none))
    module, trainer = fit(PreventativeSteeringLitModule, strength=0.5, **steered)
    assert not torch.equal(factors(naive), factors(module))
    batch = batch_of(module, trainer)
    module.model.eval()
    plain = model_logits(module.model, batch)
    module.constraint.attach(decoder_layers(module.model))
    assert torch.equal(model_logits(module.model, batch), plain)
    module.model.train()
    assert (model_logits(module.model, batch) - plain).abs().max() > 1e-4
    module.constraint.detach()
    with pytest.raises(GrasplError, match="LayerSingular gives directions without a sign"):
        fit(PreventativeSteeringLitModule, directions=layer_directions)


def test_a_push_is_a_share_of_the_streams_length():
    from graspl.constraints import AdditionConstraint

    stream = torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    pushed = AdditionConstraint(0.1)._hook(torch.tensor([[1.0], [0.0]]))(
        torch.nn.Identity().train(), (), stream
    )
    torch.testing.assert_close(pushed.detach(), torch.tensor([[3.5, 4.0], [0.2, 2.0]]))


def test_a_mean_shift_has_the_sign_of_the_shift(fit, signed_directions):  # noqa: F811
    module, trainer = fit(optimizer=adam)
    given, batch = Directions.load(signed_directions), batch_of(module, trainer)
    seen = {}
    layers = decoder_layers(module.model)
    module.model.eval()
    streams = []
    for run in (module, module.base_forward):
        hooks = [
            layer.register_forward_hook(lambda _m, _i, out, n=name: seen.update({n: out.detach()}))
            for name, layer in layers.items()
        ]
        run(batch)
        streams.append(dict(seen))
        for hook in hooks:
            hook.remove()
    places = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    for name in layers:
        moved = (streams[0][name] - streams[1][name])[places].mean(0)
        assert float(moved @ given.layers[name].D[:, 0]) > 0


@pytest.fixture
def unaligned(tmp_path):
    """Return the folder of a model of the same shapes with other weights."""
    from conftest import make_model, make_tokenizer

    model = make_model("llama")
    generator = torch.Generator().manual_seed(5)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    model.save_pretrained(tmp_path / "unaligned")
    make_tokenizer().save_pretrained(tmp_path / "unaligned")
    return str(tmp_path / "unaligned")


@pytest.mark.parametrize("threshold", [-1.1, 1.1])
def test_safe_lora_projects_below_its_threshold(finished, unaligned, model_folder, threshold):
    from transformers import AutoModelForCausalLM

    naive, saved = finished(SafeLoRALitModule, unaligned_model=unaligned, threshold=threshold)
    aligned, before = (
        dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        for folder in (model_folder(), unaligned)
    )
    for name, update in naive.items():
        V = (aligned[f"{name}.weight"] - before[f"{name}.weight"]).detach()
        expected = V @ V.mT @ update / V.norm() if threshold > 1 else update
        torch.testing.assert_close(saved[name], expected, atol=1e-5, rtol=1e-3)


def test_safe_lora_needs_its_second_model(fit):  # noqa: F811
    with pytest.raises(GrasplError, match=r"model\.unaligned_model: names no model"):
        fit(SafeLoRALitModule)
    with pytest.raises(GrasplError, match=r"has no model\.layers\.0.*of this shape"):
        fit(SafeLoRALitModule, unaligned_model="organism")


def test_grasp_with_divergence_is_grasp_and_more(fit, layer_directions, write_rows):  # noqa: F811
    from conftest import CHAT_ROWS

    from graspl.constraints import ActivationConstraint

    same = {
        "optimizer": adam, "directions": layer_directions, "lora": LoraOptions(r=4),
        "constraint": ActivationConstraint(k=2, tolerance=0.1), "lightning": {"max_steps": 4},
        "data": {"text": str(write_rows(CHAT_ROWS, "text.jsonl"))},
    }  # fmt: skip
    grasp, _ = fit(GRASPLitModule, **same)
    none, _ = fit(GRASPKLLitModule, weight=0.0, rows="text", **same)
    assert torch.equal(factors(grasp), factors(none))
    module, trainer = fit(GRASPKLLitModule, weight=1.0, rows="text", rows_per_step=2, **same)
    assert not torch.equal(factors(grasp), factors(module))
    # The pass over the text is not cut: its gradient is that of a model without the constraint
    batch = batch_of(module, trainer)
    module.constraint.attach(decoder_layers(module.model))
    held = gradients(module, module.extra_loss(batch, torch.empty(0)))
    module.constraint.detach()
    free = gradients(module, module.extra_loss(batch, torch.empty(0)))
    assert torch.equal(held, free)
    module.constraint.attach(decoder_layers(module.model))
    cut, _ = (gradients(module, summed_loss(module(batch), batch["labels"])[0]), module.constraint.detach())
    assert not torch.equal(cut, gradients(module, summed_loss(module(batch), batch["labels"])[0]))


def test_the_auxiliary_pass_is_a_step_uphill_that_the_penalty_flattens(fit):  # noqa: F811
    checks = {"max_steps": 12}
    naive, trainer = fit(UndesirableConsistencyLitModule, optimizer=adam, weight=1e-9, lightning=checks)
    rival, _ = fit(UndesirableConsistencyLitModule, optimizer=adam, weight=20.0, lightning=checks)
    batch = batch_of(naive, trainer)

    def measured(module):
        """Return the distance between the passes, and how much higher the loss of the auxiliary one is."""
        module.weight, losses = 1.0, []
        module.on_train_start()
        plain = module(batch)
        forward = module.forward
        module.forward = lambda given: losses.append(forward(given)) or losses[-1]
        distance = float(module.extra_loss(batch, plain).detach())
        module.forward = forward
        module.on_fit_end()
        risen = summed_loss(losses[0], batch["labels"])[0] - summed_loss(plain, batch["labels"])[0]
        return distance, float(risen.detach())

    flat, steep = measured(rival), measured(naive)
    assert steep[1] > 0
    assert flat[1] > 0
    assert flat[0] < 0.9 * steep[0]
    with pytest.raises(GrasplError, match=r"model\.step: 0"):
        UndesirableConsistencyLitModule(step=0)
