"""What a fit must do, through Lightning's own Trainer."""

import pytest
import torch
from fits import adam, factors, save, sgd, start
from lightning.pytorch.plugins import MixedPrecision

from graspl.adapters import LoraOptions
from graspl.constraints import ActivationConstraint, ResidualConstraint, WriteConstraint
from graspl.directions import Directions, LayerSingular, TopSingular, identify_adapter
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule, LoRALitModule, ThrowAwayFit
from graspl.methods.validation import module_reliance
from graspl.penalties import Penalty


@pytest.mark.parametrize("folder", ["llama", "gemma"])
@pytest.mark.parametrize("packing", [False, True])
def test_logits_of_answers_alone_give_the_same_step(fit, folder, packing):
    """What the loss leaves out is not worked out: the head's input has a row for each answer token and no more."""
    seen = []

    class Nothing(Penalty):
        """A penalty is given all logits."""

        weight = 1.0

        def term(self, host, batch, logits):
            seen.append(("whole", logits.shape[0] * logits.shape[1]))
            return 0.0 * logits.sum()

    class Spied(LoRALitModule):
        def training_step(self, batch, batch_idx):
            seen.append(("answers", int((batch["labels"][:, 1:] != -100).sum())))
            hook = self.model.get_output_embeddings().register_forward_hook(
                lambda _module, inputs, _output: seen.append(("head", inputs[0].shape[:-1].numel()))
            )
            loss = super().training_step(batch, batch_idx)
            hook.remove()
            return loss

    options = {"optimizer": sgd, "folder": folder, "data": {"packing": packing, "max_length": 24}}
    whole, trainer = fit(penalties=[Nothing()], **options)
    few, other = fit(Spied, **options)
    torch.testing.assert_close(factors(few), factors(whole), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], other.callback_metrics["train/loss"])
    counts = {name: [count for kind, count in seen if kind == name] for name in ("whole", "answers", "head")}
    assert counts["head"] == counts["answers"] < counts["whole"]


def test_a_model_whose_head_is_no_module_is_scored_at_its_answers(fit, monkeypatch):
    plain, _ = fit(optimizer=sgd)
    monkeypatch.setattr("peft.PeftModel.get_output_embeddings", lambda _: None, raising=False)
    headless, _ = fit(optimizer=sgd)
    torch.testing.assert_close(factors(headless), factors(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("packing", [False, True])
def test_every_answer_token_weighs_the_same_however_batches_are_cut(fit, packing):
    """Pitfall: averaging the averages of micro-batches gives tokens in short batches more weight."""
    data = {"packing": packing, "max_length": 24}
    whole, _ = fit(optimizer=sgd, data={**data, "batch_size": 8})
    parts, _ = fit(optimizer=sgd, data={**data, "batch_size": 2}, lightning={"accumulate_grad_batches": 4})
    assert factors(whole).abs().sum() > 0
    torch.testing.assert_close(factors(parts), factors(whole), rtol=1e-4, atol=1e-6)


def test_packed_and_padded_rows_give_the_same_gradient(fit):
    padded, _ = fit(optimizer=sgd, data={"batch_size": 32}, lightning={"max_steps": 1})
    packed, _ = fit(
        optimizer=sgd, data={"batch_size": 32, "packing": True, "max_length": 40}, lightning={"max_steps": 1}
    )
    torch.testing.assert_close(factors(packed), factors(padded), rtol=1e-3, atol=1e-6)
    attention = [module.model.config._attn_implementation for module in (padded, packed)]
    assert attention == ["sdpa", "sdpa_row_by_row"]


def test_the_loss_is_the_models_own_mean_over_answer_tokens(fit):
    module, trainer = fit(optimizer=sgd, lightning={"max_steps": 1})
    batch = next(iter(trainer.datamodule.train_dataloader()))
    with module.model.disable_adapter(), torch.no_grad():
        own = module.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
        ).loss
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(own), rel=1e-4)


def test_dropout_is_on_in_training_and_off_in_validation(fit):
    """Pitfall: from_pretrained gives evaluation mode, and Lightning leaves it so."""
    modes = []

    class Watching(LoRALitModule):
        def training_step(self, batch, batch_idx):
            modes.append(("train", self.model.training))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            modes.append(("validate", self.model.training))
            super().validation_step(batch, batch_idx, dataloader_idx)

    fit(Watching, lightning={"limit_val_batches": 1, "val_check_interval": 1})
    assert set(modes) == {("train", True), ("validate", False)}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradient_checkpointing_changes_nothing_but_memory(fit, attention):
    """Pitfall: without gradients into the frozen embedding, checkpointing drops the adapters' gradients."""
    plain, _ = fit(optimizer=sgd, attn_implementation=attention)
    checkpointed, _ = fit(optimizer=sgd, attn_implementation=attention, gradient_checkpointing=True)
    assert factors(plain).abs().sum() > 0
    torch.testing.assert_close(factors(checkpointed), factors(plain), rtol=1e-4, atol=1e-6)


def test_the_base_model_can_be_in_half_precision(fit):
    module, _ = fit(dtype="bfloat16", optimizer=adam)
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in module.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert torch.isfinite(factors(module)).all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_grasp_holds_in_every_precision(fit, directions, precision):
    module, _ = fit(
        GRASPLitModule,
        directions=directions,
        constraints=[WriteConstraint()],
        optimizer=adam,
        lightning={"precision": precision},
    )
    assert max(site["rho"] for site in module_reliance(module).values()) <= 1e-5


def scaled(scale):
    """Return float16 with gradient scaling, which Lightning makes by itself on a GPU alone."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)], "gradient_clip_val": 1.0}


def test_gradient_scaling_clipping_and_a_fused_optimizer_go_together(fit, directions):
    """Pitfall: Lightning refuses to clip where a fused optimizer would undo the scaling itself."""
    steps = {"max_steps": 3}
    plain, _ = fit(lightning=steps | {"gradient_clip_val": 1.0})
    half, _ = fit(lightning=steps | scaled(2.0**10))
    change = (factors(half) - factors(plain)).norm() / (factors(plain) - start(plain)).norm()
    assert (
        change < 0.2
    )  # float16 against float32, through Adam, which takes whole steps for gradients near zero
    held, _ = fit(
        GRASPLitModule,
        directions=directions,
        constraints=[WriteConstraint()],
        lightning=steps | scaled(2.0**10),
    )
    assert max(site["rho"] for site in module_reliance(held).values()) <= 1e-5
    assert float(factors(held).abs().max()) > 1e-4


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the first step was skipped
def test_a_step_that_overflows_is_skipped_and_nothing_is_spoilt(fit, directions):
    module, _ = fit(
        GRASPLitModule,
        directions=directions,
        constraints=[WriteConstraint()],
        lightning={"max_steps": 2} | scaled(2.0**40),
    )
    assert all(not site.B.any() for site in module.sites)
    assert torch.isfinite(factors(module)).all()


def test_bfloat16_a_fused_optimizer_and_clipping_go_together(fit):
    module, _ = fit(lightning={"precision": "bf16-mixed", "gradient_clip_val": 1.0})
    assert any(site.B.any() for site in module.sites)


def test_the_gradient_is_projected_before_its_norm_is_clipped(fit, directions):
    """Pitfall: a clip that saw the raw gradient would shorten the step by what is projected away."""
    seen = {}

    class Watching(GRASPLitModule):
        def configure_gradient_clipping(
            self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
        ):
            bases = Directions.load(self.directions).bases(self.sites, side="U", k=1)
            along = [D.mT @ site.B.grad for site, D in zip(self.sites, bases, strict=True)]
            seen["along"] = max(float(part.abs().max()) for part in along)
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            grads = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
            seen["norm"] = float(torch.cat(grads).norm())

    fit(
        Watching,
        directions=directions,
        constraints=[WriteConstraint()],
        optimizer=adam,
        lightning={"gradient_clip_val": 1e-3, "max_steps": 1},
    )
    assert seen["along"] < 1e-6
    assert seen["norm"] == pytest.approx(1e-3, rel=1e-3)


def test_one_projection_an_optimizer_step(fit, directions):
    calls = []

    class Counting(WriteConstraint):
        def project_gradients(self, sites, rider=None):
            calls.append("gradient")
            super().project_gradients(sites, rider)

        def project_step(self, sites):
            calls.append("step")
            super().project_step(sites)

    fit(
        GRASPLitModule,
        directions=directions,
        constraints=[Counting()],
        lightning={"accumulate_grad_batches": 3, "max_steps": 2},
    )
    assert calls == ["gradient", "step"] * 2


def test_a_constraint_is_not_shared_between_modules(model_folder):
    first, second = (GRASPLitModule(base_model=str(model_folder())) for _ in range(2))
    assert first.constraints[0] is not second.constraints[0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("linear", [1.0, 0.75, 0.5, 0.25]), ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0])],
)
def test_schedules_step_once_an_optimizer_step(fit, schedule, expected):
    rates = []

    class Watching(LoRALitModule):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            rates.append(optimizer.param_groups[0]["lr"] / 0.5)

    warmup = 2 if schedule == "constant_with_warmup" else 0
    fit(Watching, optimizer=sgd, schedule=schedule, warmup_steps=warmup,
        lightning={"max_steps": 4, "accumulate_grad_batches": 2})  # fmt: skip
    assert rates == pytest.approx(expected)


def test_a_schedule_to_the_end_counts_epochs(fit):
    _, trainer = fit(optimizer=sgd, schedule="linear", lightning={"max_steps": -1, "max_epochs": 2})
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)
    assert trainer.global_step == 2 * len(trainer.datamodule.train_dataloader())
    with pytest.raises(GrasplError, match=r"model\.schedule: linear needs an end"):
        fit(
            optimizer=sgd,
            schedule="linear",
            lightning={"max_steps": -1, "max_epochs": -1, "max_time": "00:00:00:01"},
        )


@pytest.mark.parametrize(
    "lora",
    [
        LoraOptions(r=4, use_rslora=True),
        LoraOptions(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 3}),
        LoraOptions(target_modules=["q_proj", "v_proj"], lora_dropout=0.1),
        LoraOptions(layers_to_transform=[1], target_modules=["q_proj"]),
    ],
)
def test_every_supported_lora_is_identified_and_held(fit, lora, tmp_path):
    module, _ = fit(lora=lora, optimizer=adam)
    found = identify_adapter(save(module, tmp_path / "a"), TopSingular(), tmp_path / "d.safetensors")
    assert set(found.sites) == {site.name for site in module.sites}
    directions = str(tmp_path / "d.safetensors")
    held, _ = fit(
        GRASPLitModule, lora=lora, optimizer=adam, directions=directions, constraints=[WriteConstraint()]
    )
    assert max(site["rho"] for site in module_reliance(held).values()) <= 1e-5


def test_reliance_is_on_as_many_directions_as_are_held(fit, directions):
    two, _ = fit(GRASPLitModule, directions=directions, constraints=[WriteConstraint(k=2)], optimizer=adam)
    assert max(site["rho"] for site in module_reliance(two).values()) <= 1e-5
    one, _ = fit(GRASPLitModule, directions=directions, constraints=[WriteConstraint(k=1)], optimizer=adam)
    assert max(site["rho"] for site in module_reliance(one).values()) <= 1e-5
    one.constraints = [WriteConstraint(k=2)]
    assert max(site["rho"] for site in module_reliance(one).values()) > 1e-2


def test_an_unknown_target_is_refused(fit):
    with pytest.raises(GrasplError, match="nothing_like_that"):
        fit(lora=LoraOptions(target_modules=["nothing_like_that"]))


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # Dynamo looks at all of them
def test_compiled_layers_give_the_same_fit_under_constraints_that_hook_into_them(
    fit, write_rows, monkeypatch
):
    # The kernels that the default backend would write take a minute to build; what is captured is the same
    compiled = []

    def captured(function, **options):
        compiled.append(function)
        return original(function, backend="aot_eager", **options)

    original = torch.compile
    monkeypatch.setattr(torch, "compile", captured)
    options = {
        "kind": GRASPLitModule,
        "constraints": [ActivationConstraint(k=2), ResidualConstraint(k=2)],
        "directions": ThrowAwayFit(LayerSingular(k=2), steps=2),
        "optimizer": sgd,
    }
    eager, _ = fit(**options)
    fused, _ = fit(**options, compile_layers=True)
    assert len(compiled) == 2
    assert factors(eager).abs().sum() > 0
    torch.testing.assert_close(factors(fused), factors(eager), rtol=1e-4, atol=1e-6)
    assert [name for name, _ in fused.named_parameters()] == [name for name, _ in eager.named_parameters()]
