"""What graspl takes from its libraries beyond their documentation: private names and habits.

A test that fails here after an upgrade names the library, the reason and the place in graspl. Where a habit has gone, the
code that works around it may go too.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import make_model
from jsonargparse import ArgumentError, ArgumentParser
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from transformers import AttentionInterface, AutoModelForCausalLM

from graspl.adapters.packing import ROW_BY_ROW
from graspl.errors import shorten
from graspl.evaluation.metrics import ItemValues
from graspl.quiet import QUIET


def adapted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(make_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    return model.eval()


# PEFT


def test_a_layer_of_peft_is_off_where_its_private_switch_is():
    """adapters/switch.py sets it: `disable_adapter` walks over every layer and parameter, which is slow.

    https://github.com/huggingface/peft/blob/main/src/peft/tuners/tuners_utils.py (BaseTunerLayer)
    """
    model, ids = adapted(), torch.tensor([[4, 8, 9]])
    on = model(ids).logits
    with model.disable_adapter():
        base = model(ids).logits
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    assert len(layers) == 2
    for layer in layers:
        assert layer.disable_adapters is layer._disable_adapters is False
        layer._disable_adapters = True
    assert torch.equal(model(ids).logits, base)
    assert not torch.equal(on, base)  # positive control


def test_peft_reads_what_transformers_has_renamed():
    """adapters/base_model.py, methods/model.py and QUIET silence the warning, of which a user can do nothing.

    https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py (is_gradient_checkpointing)
    """
    with pytest.warns(FutureWarning, match="`is_gradient_checkpointing` is deprecated"):
        get_peft_model(make_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))


# Transformers


def test_a_configuration_says_which_attention_its_model_takes():
    """adapters/packing.py reads the private name; there is a public setter and no public getter.

    https://github.com/huggingface/transformers/blob/main/src/transformers/configuration_utils.py (_attn_implementation)
    """
    model = make_model("llama")
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation(ROW_BY_ROW)
    assert model.config._attn_implementation == ROW_BY_ROW


def test_an_attention_of_ones_own_is_given_the_bounds_of_rows(monkeypatch):
    """adapters/packing.py passes them through the model as keywords, which flash attention has and others are given too.

    https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/flash_attention.py
    """
    seen = []

    def spy(module, query, key, value, attention_mask, **options):
        seen.append(options.get("cu_seq_lens_q"))
        return sdpa(module, query, key, value, attention_mask, **options)

    sdpa = AttentionInterface()["sdpa"]
    monkeypatch.setitem(AttentionInterface._global_mapping, ROW_BY_ROW, spy)
    model = make_model("llama").eval()
    model.set_attn_implementation(ROW_BY_ROW)
    bounds = torch.tensor([0, 2, 5], dtype=torch.int32)
    model(torch.tensor([[4, 8, 9, 8, 4]]), cu_seq_lens_q=bounds)
    assert len(seen) == 2
    assert all(each is bounds for each in seen)


def test_a_loaded_model_is_in_evaluation_mode(model_folder):
    """adapters/base_model.py and methods/model.py put it in training mode, else dropout would be off in a fit.

    https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py (from_pretrained)
    """
    assert not AutoModelForCausalLM.from_pretrained(model_folder()).training


# torch and Lightning


def test_lightning_refuses_to_clip_where_a_fused_optimizer_unscales():
    """methods/step.py takes the private mark off the optimizer, so that Lightning unscales before it clips.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/plugins/precision/amp.py
    """
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], fused=True)
    assert optimizer._step_supports_amp_scaling is True
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        precision.clip_gradients(optimizer, clip_val=1.0)
    optimizer._step_supports_amp_scaling = False
    precision.clip_gradients(optimizer, clip_val=1.0)


def test_fsdp1_keeps_its_kind_of_checkpoint_under_a_private_name():
    """methods/state.py refuses `sharded`, and reads the option there.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/strategies/fsdp.py
    """
    assert FSDPStrategy()._state_dict_type == "full"
    assert FSDPStrategy(state_dict_type="sharded")._state_dict_type == "sharded"


class Ordered(BoringModel):
    """Notes in which order Lightning calls what graspl overrides."""

    def __init__(self):
        super().__init__()
        self.order = []

    def on_before_optimizer_step(self, optimizer):
        self.order.append("project")

    def configure_gradient_clipping(self, *args, **kwargs):
        self.order.append("clip")

    def train_dataloader(self):
        return DataLoader(RandomDataset(32, 4))


@pytest.fixture
def boring(tmp_path):
    """Return a model and its trainer after two of an epoch's four steps."""
    model = Ordered()
    trainer = Trainer(
        default_root_dir=tmp_path, max_steps=2, accelerator="cpu", logger=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=1.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec")
        trainer.fit(model)
    return model, trainer


def test_the_gradient_is_projected_before_it_is_clipped(boring):
    """methods/grasp.py projects in `on_before_optimizer_step`: a clip that saw the whole gradient would shorten the step.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/plugins/precision/precision.py
    """
    model, _ = boring
    assert model.order == ["project", "clip"] * 2


def test_an_epoch_that_max_steps_cuts_counts_as_done(boring):
    """methods/state.py reopens it in the checkpoint, by these names: a resumed fit would leave out the rest of its rows.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/loops/fit_loop.py
    """
    _, trainer = boring
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    loop = checkpoint["loops"]["fit_loop"]
    batches, epochs = loop["epoch_loop.batch_progress"], loop["epoch_progress"]
    assert batches["current"]["completed"] == 2
    assert batches["is_last_batch"] is False
    for counts in (epochs["current"], epochs["total"]):
        assert counts["processed"] == counts["completed"] == counts["started"] == 1
    assert checkpoint["epoch"] == 1


SENTENCES = {
    "`is_gradient_checkpointing` is deprecated": ("transformers", "`is_gradient_checkpointing` is deprecated"),
    "Experiment logs directory": ("lightning.fabric.loggers", "Experiment logs directory"),
    "The '(train|val)_dataloader' does not have many workers": (
        "lightning.pytorch.trainer", "' does not have many workers"
    ),
    "The number of training batches": ("lightning.pytorch.loops", "The number of training batches ("),
    "You're resuming from a checkpoint that ended before": (
        "lightning.pytorch.loops", "You're resuming from a checkpoint that ended before"
    ),
    ".*LeafSpec.* is deprecated": ("torch.utils", "LeafSpec)` is deprecated"),
    ".*Checkpoint directory .* exists and is not empty": ("lightning.pytorch.callbacks", "exists and is not empty"),
    "torch.distributed is disabled": ("torch.distributed.checkpoint", "torch.distributed is disabled"),
    "Tip:": ("lightning.pytorch.trainer", "Tip:"),
}  # fmt: skip


@pytest.mark.parametrize("message", SENTENCES)
def test_every_silenced_message_is_still_said(message):
    """training_cli.py, auditing/ and adapters/checkpoint.py silence them by their words, with the reasons beside them.

    A filter whose message has gone hides nothing and should go; one whose message was reworded no longer works.
    """
    package, words = SENTENCES[message]
    (folder,) = find_spec(package).submodule_search_locations
    assert any(words in file.read_text(encoding="utf-8") for file in Path(folder).rglob("*.py"))


def test_every_silenced_message_is_watched():
    assert set(QUIET) <= set(SENTENCES)


# torchmetrics


def test_a_metric_forgets_its_type_when_it_moves():
    """evaluation/suites.py therefore sets float64 after `to(device)`.

    https://github.com/Lightning-AI/torchmetrics/blob/master/src/torchmetrics/metric.py (Metric.set_dtype)
    """
    assert MeanMetric().set_dtype(torch.float64).to("cpu").dtype == torch.float32
    assert MeanMetric().to("cpu").set_dtype(torch.float64).dtype == torch.float64


def test_a_list_of_several_processes_is_one_tensor():
    """evaluation/metrics.py takes both forms.

    https://github.com/Lightning-AI/torchmetrics/blob/master/src/torchmetrics/metric.py (Metric._sync_dist)
    """
    metric = ItemValues()
    metric.rows = [torch.tensor([[0.0, 0.5], [1.0, 0.25]])]
    metric.sync(dist_sync_fn=lambda state, group: [state, state + 2], distributed_available=lambda: True)
    assert isinstance(metric.rows, torch.Tensor)
    assert len(metric.rows) == 4


# jsonargparse


class Kind:
    pass


class Three(Kind):
    def __init__(self, k: int = 3):
        self.k = k


class Six(Kind):
    def __init__(self, k: int = 6):
        self.k = k


def test_a_default_object_hands_its_options_to_another_class():
    """Defaults of methods/directions.py, callbacks/artifacts.py and others are None for that reason, and set later.

    https://github.com/omni-us/jsonargparse/blob/main/jsonargparse/_typehints.py
    """

    def wanted(kind: Kind = Three()): ...  # noqa: B008

    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(wanted)
    config = parser.parse_args([f"--kind={__name__}.Six"])
    assert parser.instantiate(config).kind.k == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([f"--kind={__name__}.Six", "--kind.z=1"], "Option 'z' is not accepted"),
        (["--kind=nonsense"], "Expected a dot import path string: nonsense"),
    ],
)
def test_a_wrong_option_is_told_among_all_that_was_tried(arguments, told):
    """errors.py picks the one line that matters out of the list, by its words.

    https://github.com/omni-us/jsonargparse/blob/main/jsonargparse/_typehints.py
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--kind", type=Kind | None)
    with pytest.raises(ArgumentError) as found:
        parser.parse_args(arguments)
    assert "Expected a <class 'NoneType'>" in str(found.value)
    message = shorten(str(found.value))
    assert told in message
    assert "NoneType" not in message
    assert "Subtypes" not in message
