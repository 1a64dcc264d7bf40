"""GRASP in other people's training, with the real libraries, beside `graspl fit` on the same batches."""

import warnings
from pathlib import Path

import pytest
import torch
from conftest import CHAT_ROWS
from datasets import Dataset
from lightning import Callback, Trainer, seed_everything
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from transformers import Trainer as TransformersTrainer

from graspl import GRASPCallback, HeldAdapter
from graspl.adapters import LoraOptions, lora_sites, write_reliance
from graspl.constraints import (
    ActivationConstraint,
    PairConstraint,
    ReadConstraint,
    ResidualConstraint,
    WriteConstraint,
)  # fmt: skip
from graspl.data import ChatDataModule
from graspl.data.batches import PaddedCollator, TrainSampler
from graspl.directions import Directions, LayerDirections, LayerSingular, TopSingular, identify_adapter
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule

STEPS, ROWS, ACCUMULATED = 4, 4, 2  # within one epoch, whose order is known
EPSILON = 1e-5
"""Adam divides by at least this; by less, and rounding in a gradient of nothing would be a step of its own."""
OPTIONS = LoraOptions(r=8, lora_alpha=16)
DEFAULT = [ActivationConstraint(k=2, tolerance=1.0, every=2), ResidualConstraint(k=2)]


class Start(Callback):
    """Gives the adapter its first weights."""

    def __init__(self, state):
        self.state = state

    def on_fit_start(self, trainer, pl_module):
        pl_module.load_state_dict(self.state, strict=False)


@pytest.fixture
def setting(model_folder, write_rows, tmp_path):
    """Return what all share: a model folder, its rows in the order of a fit, the adapter's first weights, directions."""
    folder, rows = model_folder("llama"), write_rows(CHAT_ROWS)
    data = ChatDataModule(train=str(rows), base_model=str(folder), batch_size=ROWS, group_by_length=False)
    data.setup("fit")
    tokenized = data._train
    order = list(TrainSampler([1] * len(tokenized), ROWS, num_replicas=1, rank=0, seed=0))
    return Setting(folder, rows, [tokenized[i] for i in order], tmp_path)


class Setting:
    def __init__(self, folder, file, rows, tmp_path):
        self.folder, self.file, self.rows, self.tmp_path = folder, file, rows, tmp_path
        self.start = {
            name: p.detach().clone() for name, p in self.model().named_parameters() if p.requires_grad
        }
        generator = torch.Generator().manual_seed(5)
        trained = self.model()
        for site in lora_sites(trained):
            site.B.data.copy_(torch.randn(site.B.shape, generator=generator) * 0.1)
        trained.save_pretrained(tmp_path / "naive", save_embedding_layers=False)
        self.files = {}
        for name, method in (("sites", TopSingular(k=2)), ("layers", LayerSingular(k=2))):
            self.files[name] = str(tmp_path / f"{name}.safetensors")
            identify_adapter(tmp_path / "naive", method, Path(self.files[name]))

    def model(self):
        torch.manual_seed(3)
        return get_peft_model(AutoModelForCausalLM.from_pretrained(self.folder), OPTIONS.to_peft())

    def graspl(self, constraints, directions):
        """Return the factors after `graspl fit`."""
        seed_everything(0, verbose=False)
        module = GRASPLitModule(
            base_model=str(self.folder),
            lora=OPTIONS,
            directions=directions,
            constraints=constraints,
            optimizer=adam,
        )
        data = ChatDataModule(
            train=str(self.file), base_model=str(self.folder), batch_size=ROWS, group_by_length=False
        )
        trainer = Trainer(
            accelerator="cpu", max_steps=STEPS, accumulate_grad_batches=ACCUMULATED, logger=False, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=self.tmp_path, callbacks=[Start({f"model.{k}": v for k, v in self.start.items()})],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers")
            warnings.filterwarnings("ignore", ".*LeafSpec")
            trainer.fit(module, data)
        return factors(module.sites)

    def arguments(self, kind, **options):
        return kind(
            output_dir=str(self.tmp_path / "out"), per_device_train_batch_size=ROWS, gradient_accumulation_steps=ACCUMULATED,
            max_steps=STEPS, learning_rate=1e-2, adam_epsilon=EPSILON, lr_scheduler_type="constant",
            max_grad_norm=0.0, weight_decay=0.0, train_sampling_strategy="sequential", report_to="none",
            disable_tqdm=True, use_cpu=True,
            **({"save_strategy": "no"} | options),
        )  # fmt: skip

    def dataset(self):
        return Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in self.rows])

    def trl(self, callbacks):
        """Return a model trained by TRL."""
        from trl import SFTConfig, SFTTrainer

        trainer = SFTTrainer(
            model=self.model(), args=self.arguments(SFTConfig, activation_checkpointing=False, bf16=False),
            train_dataset=self.dataset(), processing_class=AutoTokenizer.from_pretrained(self.folder), callbacks=callbacks,
        )  # fmt: skip
        trainer.train()
        return trainer.model

    def transformers(self, callbacks, resume=None, **options):
        """Return a model trained by Transformers."""
        collate = PaddedCollator(1)

        def batches(rows):
            batch = collate([type(self.rows[0])(row["input_ids"], row["labels"]) for row in rows])
            return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

        trainer = TransformersTrainer(
            model=self.model(), args=self.arguments(TrainingArguments, **options), train_dataset=self.dataset(),
            data_collator=batches, callbacks=callbacks,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model

    def loop(self, constraints, directions):
        """Return a model trained by a bare loop with the three lines."""
        model = self.model().train()
        optimizer = adam([p for p in model.parameters() if p.requires_grad])
        held = HeldAdapter(model, directions, constraints)
        collate, a_step = PaddedCollator(1), ROWS * ACCUMULATED
        for first in range(0, STEPS * a_step, a_step):
            picked = [self.rows[at : at + ROWS] for at in range(first, first + a_step, ROWS)]
            given = [collate(rows) for rows in picked]
            tokens = sum(int((batch["labels"] != -100).sum()) for batch in given)
            for batch in given:
                inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
                (model(**inputs, use_cache=False).loss * (batch["labels"] != -100).sum() / tokens).backward()
            held.project_gradients()
            optimizer.step()
            held.project_step()
            optimizer.zero_grad()
        held.release()
        return model


def adam(params):
    return torch.optim.AdamW(params, lr=1e-2, eps=EPSILON, weight_decay=0.0)


def factors(sites):
    return torch.cat([p.detach().flatten() for site in sites for p in (site.A, site.B)])


def rho(model, file):
    sites = lora_sites(model)
    bases = Directions.load(file).bases(sites, side="U", k=2)
    return max(write_reliance(site.B, site.A, U) for site, U in zip(sites, bases, strict=True))


HELD = {
    "write": ([WriteConstraint(k=2)], "sites"),
    "pair": ([PairConstraint(k=2)], "sites"),
    "read": ([ReadConstraint(k=2)], "sites"),
    "default": (DEFAULT, "layers"),
}


@pytest.mark.parametrize("trainer", ["trl", "transformers", "loop"])
@pytest.mark.parametrize("kind", HELD)
def test_the_adapter_is_that_of_graspl_fit(setting, trainer, kind):
    constraints, name = HELD[kind]
    file = setting.files[name]
    expected = setting.graspl(constraints, file)
    if trainer == "loop":
        model = setting.loop(constraints, file)
    else:
        model = getattr(setting, trainer)([GRASPCallback(file, constraints)])
    found = factors(lora_sites(model))
    assert (found - factors(lora_sites(setting.model()))).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trainer", ["trl", "transformers"])
def test_exact_mode_holds_to_rounding_and_nothing_else_does(setting, trainer):
    file = setting.files["sites"]
    train = getattr(setting, trainer)
    assert rho(train([GRASPCallback(file, [WriteConstraint(k=2)])]), file) <= 1e-5
    # Positive controls: the optimizer leaves the null space, and without the callback nothing holds it
    assert rho(train([GRASPCallback(file, [WriteConstraint(k=2)], exact=False)]), file) > 1e-3
    assert rho(train([]), file) > 1e-3


def test_a_run_goes_on_from_its_checkpoint_under_the_constraint(setting):
    file = setting.files["sites"]
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole = setting.transformers([GRASPCallback(file, [WriteConstraint(k=2)])], **saving)
    resumed = setting.transformers(
        [GRASPCallback(file, [WriteConstraint(k=2)])],
        resume=str(setting.tmp_path / "out" / "checkpoint-2"),
        **saving,
    )
    torch.testing.assert_close(factors(lora_sites(resumed)), factors(lora_sites(whole)), rtol=0, atol=1e-6)
    assert rho(resumed, file) <= 1e-5


def test_a_model_without_an_adapter_is_refused(setting):
    with pytest.raises(GrasplError, match="get_peft_model"):
        HeldAdapter(AutoModelForCausalLM.from_pretrained(setting.folder), setting.files["sites"])


def test_directions_of_another_model_are_refused(setting):
    found = Directions.load(setting.files["sites"])
    other = Directions(found.sites, {**found.metadata, "base_model": "another/model"})
    with pytest.raises(GrasplError, match="found on another/model"):
        HeldAdapter(setting.model(), other, [WriteConstraint()])


def test_a_missing_file_is_told_before_training():
    with pytest.raises(GrasplError, match=r"nowhere\.safetensors"):
        GRASPCallback("nowhere.safetensors")


def test_the_default_needs_the_labels_and_says_so(setting):
    model = setting.model().train()
    HeldAdapter(model, setting.files["layers"], DEFAULT)
    with pytest.raises(GrasplError, match="it needs the batch's labels"):
        model(input_ids=torch.tensor([[5, 6, 7]]))
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7]]))
    model.eval()
    model(input_ids=torch.tensor([[5, 6, 7]]))


def test_a_released_model_is_as_it_was(setting):
    model = setting.model().train()
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[-100, 6, 7, 8]])}

    def gradients():
        model.zero_grad()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = gradients()
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    width = model.config.hidden_size
    layers = {
        f"model.layers.{i}": LayerDirections(
            torch.linalg.qr(torch.randn(width, 2))[0].contiguous(), torch.ones(2)
        )
        for i in range(model.config.num_hidden_layers)
    }
    held = HeldAdapter(model, Directions({}, {}, layers), DEFAULT)
    assert not torch.equal(gradients(), before)
    held.release()
    assert torch.equal(gradients(), before)
    assert hooks == sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )
