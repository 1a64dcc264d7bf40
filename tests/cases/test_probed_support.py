"""What a model is assumed to support is tried out on the model: packing and shared prefixes."""

from functools import partial

import pytest
import torch
import transformers
from conftest import CHAT_ROWS
from families import COMMON, family_folder
from fits import adam, batch_of, train
from matrix import model_of

from graspl import LoRALitModule
from graspl.data.choices import ChoiceCollator, ChoiceItem
from graspl.errors import GrasplError
from graspl.evaluation import candidate_logprobs
from graspl.methods.probes import check_prefixes

LEAKS = ("opt", "lfm2", "bloom", "falcon")


def loss_of_the_first_batch(base, packing, rows, folder):
    """Return the mean loss of all rows at the base model."""
    torch.manual_seed(0)
    module = LoRALitModule(base, optimizer=adam)
    data = {"packing": packing, "batch_size": 64, "max_length": 64, "too_long": "drop"}
    trainer = train(module, rows=rows, folder=folder, data=data, lightning={"max_steps": 1})
    module.model.eval()  # Some families have dropout of their own
    with torch.no_grad():
        for site in module.sites:
            site.B.zero_()
        total, tokens = module.answer_loss(batch_of(trainer))
    return float(total / tokens)


@pytest.mark.parametrize("kind", ["llama", "opt", "lfm2", "bloom", "gpt2", "falcon"])
def test_packing_leak(kind, folder_of, write_rows, tmp_path):
    """Packed rows have the loss that they have padded, or the fit ends before its first step."""
    rows = write_rows(CHAT_ROWS)
    padded = loss_of_the_first_batch(folder_of(kind), False, rows, tmp_path / "padded")
    if kind not in LEAKS:
        packed = loss_of_the_first_batch(folder_of(kind), True, rows, tmp_path / "packed")
        assert packed == pytest.approx(padded, rel=1e-5)
        return
    with pytest.raises(
        GrasplError, match=r"^data\.packing: in \w+ForCausalLM a row of a pack depends on the others .*false$"
    ):
        loss_of_the_first_batch(folder_of(kind), True, rows, tmp_path / "packed")
    assert not (tmp_path / "packed" / "adapter").exists()


@pytest.mark.parametrize("kind", ["llama", "opt", "lfm2", "bloom", "gpt2", "falcon"])
def test_shared_prefixes_are_tried_out(kind, folder_of, write_rows, tmp_path):
    """Whatever the family, what is measured is what whole rows give, or the validation ends in one line."""
    rows = write_rows(CHAT_ROWS)
    module = LoRALitModule(folder_of(kind), optimizer=adam)
    trainer = train(module, rows=rows, folder=tmp_path, lightning={"max_steps": 1})
    tokenizer = trainer.datamodule.tokenizer
    items = [
        ChoiceItem(
            [{"role": "user", "content": f"how do i {word}"}],
            ["rest one", "take two pills"],
            ["good", "harmful"],
        )
        for word in ("open the file", "rest", "take pills")
    ]
    whole, shared = (ChoiceCollator(tokenizer, share_prefixes=share)(items) for share in (False, True))
    module.model.eval()
    with torch.no_grad():
        expected = candidate_logprobs(module(whole), whole)
        try:
            found = candidate_logprobs(module(shared), shared)
        except AttributeError:  # A cache of a kind that cannot be divided
            found = torch.full_like(expected, torch.nan)
    if torch.allclose(found, expected, rtol=1e-4, atol=1e-4):
        check_prefixes(module, shared)
    else:
        with pytest.raises(
            GrasplError, match=r"^data\.share_prefixes: \w+ (gives|cannot) .*set it to false$"
        ):
            check_prefixes(module, shared)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "opt"])
def test_sixteen_bits_are_rounding_and_no_leak(kind, tmp_path, write_rows):
    """What is right in float32 is not refused in bfloat16, and what leaks is refused there too."""
    base = str(family_folder(kind, tmp_path / "model", model_of(kind)))
    module = LoRALitModule(base, dtype="bfloat16", optimizer=adam)
    fit = partial(train, module, rows=write_rows(CHAT_ROWS), folder=tmp_path, data={"packing": True})
    if kind == "opt":
        with pytest.raises(GrasplError, match=r"^data\.packing: in OPTForCausalLM"):
            fit()
    else:
        assert fit().global_step == 3


@pytest.mark.parametrize("packing", [True, False])
def test_more_tokens_than_positions(packing, tmp_path, write_rows):
    """A model with a table of positions is refused rows and packs beyond it, and trains within it."""
    sizes = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 8}
    options = {name: size for name, size in COMMON.items() if not name.startswith("num_")}
    config = transformers.GPTNeoConfig(**options, **sizes, max_position_embeddings=64)
    base = family_folder("gpt_neo", tmp_path / "model", transformers.AutoModelForCausalLM.from_config(config))
    rows = write_rows([*CHAT_ROWS, *([] if packing else [{"prompt": "take " * 80, "completion": "yes"}])])
    data = {"packing": packing, "batch_size": 4}
    what = "pack" if packing else "row"
    with pytest.raises(
        GrasplError, match=rf"^data\.max_length: the model has 64 positions and cannot run a {what} of"
    ):
        train(LoRALitModule(str(base), optimizer=adam), rows=rows, folder=tmp_path / "far", data=data)
    data |= {"max_length": 64, "too_long": "drop"}
    train(LoRALitModule(str(base), optimizer=adam), rows=rows, folder=tmp_path / "near", data=data)
