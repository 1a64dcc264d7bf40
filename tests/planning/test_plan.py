"""`graspl plan` against what is there: parameters and optimizer state, to the byte."""

import json

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from graspl.adapters import LoraOptions
from graspl.planning import Layout, footprint, model_shape, sent_bytes

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
    held = footprint(shape, Layout("single"), directions=6)
    assert held.optimizer == state
    assert held.frozen == sum(p.nbytes for p in frozen)
    assert held.adapter == sum(p.nbytes for p in trained)
    config = SHAPES[name]
    assert held.directions == 4 * 6 * config.hidden_size * config.num_hidden_layers
    # Sharded over eight, the first device has the first of torch's chunks
    sharded = footprint(shape, Layout("fsdp", 8), directions=0)
    assert sharded.frozen == sum(p.chunk(8)[0].nbytes for p in frozen)
    assert sharded.adapter == sum(p.chunk(8)[0].nbytes for p in trained)
    assert held.frozen / 8 <= sharded.frozen < 1.01 * held.frozen / 8


SMALL = LlamaConfig(
    vocab_size=2000, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def test_four_bits_take_half_a_byte_and_their_scales(folder):
    shape = model_shape(folder(SMALL), LORA)
    held = footprint(shape, Layout("single", four_bit=True), directions=0)
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
    assert sent_bytes(shape, Layout("single")) == 0
    assert sent_bytes(shape, Layout("ddp", 4)) == round(1.5 * adapter)
    # every micro-batch gathers all, and the layers once more; gradients once
    gathered = 3 * (2 * (frozen + adapter) - outside)
    assert sent_bytes(shape, Layout("fsdp", 4), 3) == round(0.75 * (gathered + adapter))


def test_the_command_names_the_ways_and_what_does_not_fit(graspl, folder, tmp_path):
    shape = folder(SHAPES["Qwen2.5-7B"])
    code, out, err = graspl("plan", shape, "--devices=8")
    assert code == 0, err
    assert "--trainer.strategy ddp --trainer.devices 8" in " ".join(out.split())
    assert "7,615,616,512 frozen parameters" in out
    assert "does not fit" not in out
    code, out, err = graspl("plan", shape, "--devices=2", "--memory_gb=7")
    assert code == 0, err
    assert out.count("does not fit") == 2  # four bits do fit
    assert "--model.load_in_4bit" in out


def test_mistakes_are_told_in_one_line(graspl, folder, tmp_path):
    shape = folder(SHAPES["Qwen2.5-7B"])
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "nothing_known"}))
    for arguments, told in (
        ([tmp_path / "none"], "no folder"),
        ([shape, "--devices=0"], "devices"),
        ([shape, "--memory_gb=-1"], "memory_gb"),
        ([tmp_path / "odd"], "its configuration"),
        ([shape, '--lora.target_modules=["nothing"]'], "nothing"),
    ):
        code, _, err = graspl("plan", *arguments)
        assert code == 2
        assert told in err
        assert "Traceback" not in err
