"""`graspl plan` against what is there: parameters and optimizer state exactly, a step's peak against a measured run."""

import json

import pytest
import torch
from peft import get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from graspl.adapters import LoraOptions
from graspl.adapters.forward import model_logits
from graspl.errors import GrasplError
from graspl.methods.loss import summed_loss
from graspl.planning import Layout, LiveBytes, Machine, StepCost, choices, footprint, model_shape, step_cost
from graspl.planning.choices import communication

SHAPES = {
    "Qwen2.5-7B": Qwen2Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    ),
    "Qwen2.5-32B": Qwen2Config(
        vocab_size=152064, hidden_size=5120, intermediate_size=27648, num_hidden_layers=64, num_attention_heads=40,
        num_key_value_heads=8, tie_word_embeddings=False,
    ),
    "Llama-70B": LlamaConfig(
        vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, tie_word_embeddings=False,
    ),
}  # fmt: skip
LORA = LoraOptions(r=32, lora_alpha=64)
NO_STEP = StepCost(0, 0)


@pytest.fixture
def folder(tmp_path):
    """Return a function: a configuration -> a folder with nothing else in it."""

    def write(config):
        config.save_pretrained(tmp_path / "shape")
        return str(tmp_path / "shape")

    return write


def counted(config):
    """Return a model with its adapter on `meta`, made without graspl."""
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
        return get_peft_model(base, LORA.to_peft())


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_and_optimizer_state_are_those_of_a_model_on_meta(name, folder):
    shape, model = model_shape(folder(SHAPES[name]), LORA), counted(SHAPES[name])
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert shape.frozen_numbers == sum(p.numel() for p in frozen)
    assert shape.adapter_numbers == sum(p.numel() for p in trained)
    optimizer = torch.optim.AdamW(trained)
    for p in trained:
        p.grad = torch.empty_like(p)
    optimizer.step()
    state = sum(each.nbytes for kept in optimizer.state.values() for each in kept.values())
    held = footprint(shape, Layout("single"), NO_STEP, directions=6)
    assert held.optimizer == state
    assert held.frozen == sum(p.nbytes for p in frozen)
    assert held.adapter == sum(p.nbytes for p in trained)
    config = SHAPES[name]
    assert held.directions == 4 * 6 * config.hidden_size * config.num_hidden_layers
    # Sharded over eight, the first device has the first of torch's chunks
    sharded = footprint(shape, Layout("fsdp", 8), NO_STEP, directions=0)
    assert sharded.frozen == sum(p.chunk(8)[0].nbytes for p in frozen)
    assert sharded.adapter == sum(p.chunk(8)[0].nbytes for p in trained)
    assert held.frozen / 8 <= sharded.frozen < 1.01 * held.frozen / 8


SMALL = LlamaConfig(
    vocab_size=2000, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def measured(checkpointing, rows, length):
    """Return the profiler's peak of a micro-batch on the CPU, in bytes, and that of LiveBytes."""
    model = get_peft_model(
        AutoModelForCausalLM.from_config(SMALL, dtype=torch.float32).requires_grad_(False), LORA.to_peft()
    )
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 2000, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0

    def step():
        model.zero_grad()
        summed_loss(model_logits(model, {"input_ids": ids, "attention_mask": mask}), ids)[0].backward()

    with LiveBytes() as live:
        step()
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    now = peak = 0
    for each in sorted(events, key=lambda event: event.start_ns()):
        now += each.nbytes()
        peak = max(peak, now)
    return peak, live.peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(4, 64), (2, 256)])
def test_a_steps_peak_is_that_of_a_measured_run(folder, checkpointing, rows, length):
    peak, live = measured(checkpointing, rows, length)
    found = step_cost(
        folder(SMALL), LORA, rows=rows, length=length, dtype="float32", checkpointing=checkpointing
    )
    assert live == pytest.approx(peak, rel=0.02)
    assert found.peak_bytes == pytest.approx(peak, rel=0.2)


def test_checkpoints_save_memory_and_cost_a_forward_pass(folder):
    plain, saving = (
        step_cost(folder(SMALL), LORA, rows=4, length=128, checkpointing=each) for each in (False, True)
    )
    assert saving.peak_bytes < 0.7 * plain.peak_bytes
    assert plain.flops < saving.flops < 1.6 * plain.flops
    # The adapted model's forward pass is 2 operations a number and token, its backward pass about as much
    shape = model_shape(folder(SMALL), LORA)
    linear = sum(each.numbers for each in shape.frozen if len(each.shape) == 2) - 2000 * 128
    assert 4 * 512 * linear < plain.flops < 8 * 512 * linear


def test_four_bits_take_half_a_byte_and_their_scales(folder):
    shape = model_shape(folder(SMALL), LORA)
    held = footprint(shape, Layout("single", four_bit=True), NO_STEP, directions=0)
    linear = [each for each in shape.frozen if each.quantised]
    assert len(linear) == 4 * 7  # neither the head nor the embedding
    numbers = sum(each.numbers for each in linear)
    others = sum(each.numbers for each in shape.frozen) - numbers
    assert held.frozen == pytest.approx(2 * others + numbers * (0.5 + 1 / 64), rel=0.01)


def test_what_is_sent_by_hand(folder):
    shape = model_shape(folder(SMALL), LORA)
    adapter = 4 * shape.adapter_numbers
    frozen = 2 * shape.frozen_numbers
    outside = 2 * (2 * 2000 * 128 + 128)
    assert communication(shape, Layout("single")) == 0
    assert communication(shape, Layout("ddp", 4)) == round(1.5 * adapter)
    # every micro-batch gathers all, and the layers once more; gradients once
    gathered = 3 * (2 * (frozen + adapter) - outside)
    assert communication(shape, Layout("fsdp", 4), 3) == round(0.75 * (gathered + adapter))


def test_the_fastest_that_fits_comes_first(folder):
    shape = model_shape(folder(SMALL), LORA)
    costs = {False: StepCost(10**9, 10**12), True: StepCost(10**8, 2 * 10**12)}
    machine = Machine(devices=2, memory_gb=1.0, reserve_gb=0.5)
    found = choices(shape, costs, machine, directions=6)
    # Only with checkpoints does it fit; DDP sends less than FSDP2
    assert [(each.layout.strategy, each.layout.checkpointing, each.fits) for each in found[:1]] == [
        ("ddp", True, True)
    ]
    assert [each.fits for each in found] == [True] * 3 + [False] * 3
    assert found[0].options() == [
        "--config configs/trainer/ddp.yaml", "--model.gradient_checkpointing true",
    ]  # fmt: skip
    assert [each.layout.four_bit for each in found if each.fits] == [False, False, True]
    large = choices(shape, costs, Machine(devices=2, memory_gb=80), directions=6)
    assert not large[0].layout.checkpointing
    assert large[0].seconds < large[-1].seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": 0}, "machine.devices: 0"),
        ({"tflops": 0}, "machine.tflops: 0"),
        ({"memory_gb": -1}, "machine.memory_gb"),
    ],
)
def test_a_machine_that_cannot_be(options, words):
    with pytest.raises(GrasplError, match=words):
        Machine(**options)


def test_the_command_names_the_options_or_says_that_nothing_fits(graspl, folder, tmp_path):
    shape = folder(SHAPES["Qwen2.5-7B"])
    code, out, err = graspl("plan", "--base_model", shape, "--length=256", "--machine.devices=8")
    assert code == 0, err
    assert "fastest that fits: --config configs/trainer/ddp.yaml" in out
    assert "7,615,616,512 frozen parameters" in out
    code, out, err = graspl(
        "plan", "--base_model", shape, "--length=256", "--machine.devices=2", "--machine.memory_gb=6"
    )
    assert code == 0, err
    assert "nothing fits into 6 GB a device" in out
    code, _, err = graspl("plan", "--base_model", tmp_path / "none")
    assert code == 2
    assert "there is no folder" in err
    code, _, err = graspl("plan", "--base_model", shape, "--rows=0")
    assert (code, "rows: 0 is below 1" in err) == (2, True)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "nothing_known"}))
    code, _, err = graspl("plan", "--base_model", tmp_path / "odd")
    assert code == 2
    assert "the configuration of" in err
    code, _, err = graspl("plan", "--base_model", shape, '--lora.target_modules=["nothing"]')
    assert code == 2
    assert "nothing" in err
