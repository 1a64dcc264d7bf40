"""Four-bit weights (QLoRA) on a processor, by bitsandbytes itself; `make extras` installs it and runs this."""

import pytest
import torch
from conftest import CHAT_ROWS, make_model, make_tokenizer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from graspl.adapters import load_base_model

pytest.importorskip("bitsandbytes", reason="needs the qlora extra: make extras")
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:The dirpath has changed"
)

WIDTHS = {"multiples of 64": {"hidden_size": 64, "intermediate_size": 128}, "odd": {"hidden_size": 48}}


@pytest.fixture(params=WIDTHS)
def model_folder(request, tmp_path):
    folder = tmp_path / "model"
    make_model("llama", **WIDTHS[request.param]).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def gradients(model, ids):
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if "lora_B" in name}


def test_gradients_pass_through_four_bits_after_a_validation_as_before(model_folder):
    base = load_base_model(str(model_folder), load_in_4bit=True)
    four_bits = [module for module in base.modules() if type(module).__name__ == "Linear4bit"]
    assert len(four_bits) == 14  # all but the head
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    ids = torch.randint(6, 20, (2, 8), generator=torch.Generator().manual_seed(0))
    before = gradients(model, ids)
    assert all(float(each.abs().max()) > 0 for each in before.values())
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    for name, gradient in gradients(model, ids).items():
        torch.testing.assert_close(gradient, before[name], msg=name)


def fitted(graspl, folder, model, rows, *options):
    code, _, err = graspl(
        "fit", "--data=graspl.data.ChatDataModule", f"--data.train={rows}", "--data.group_by_length=false",
        "--data.batch_size=2", "--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false", f"--trainer.default_root_dir={folder}",
        "--model=graspl.methods.LoRALitModule", f"--model.base_model={model}", "--model.load_in_4bit=true",
        "--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=1e-2",
        *options,
    )  # fmt: skip
    assert code == 0, err
    return load_file(f"{folder}/adapter/adapter_model.safetensors")


@pytest.mark.slow
def test_a_method_that_reads_frozen_weights_reads_them_in_full(graspl, model_folder, write_rows):
    """The balanced update moves every site equally far, measured by the weights that four bits stand for."""
    from peft.utils.integrations import dequantize_module_weight

    rows = write_rows(CHAT_ROWS)
    saved = fitted(graspl, "balanced", model_folder, rows, "--model.transforms+=graspl.transforms.Balance")
    naive = fitted(graspl, "naive", model_folder, rows)
    base = load_base_model(str(model_folder), load_in_4bit=True)
    moved = {"saved": [], "naive": []}
    for name in saved:
        if "lora_B" in name:
            site = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
            weight = dequantize_module_weight(base.get_submodule(site)).float()
            assert weight.shape == (saved[name].shape[0], saved[name.replace("lora_B", "lora_A")].shape[1])
            for kind, tensors in (("saved", saved), ("naive", naive)):
                update = tensors[name] @ tensors[name.replace("lora_B", "lora_A")]
                moved[kind].append(update.norm() / weight.norm())
    assert max(moved["naive"]) > 1.1 * min(moved["naive"])  # positive control
    torch.testing.assert_close(torch.stack(moved["saved"]), moved["saved"][0].expand(14), rtol=1e-3, atol=0)


@pytest.mark.slow
def test_a_fit_in_four_bits_goes_on_where_it_was(graspl, model_folder, write_rows):
    rows, longer = write_rows(CHAT_ROWS), "--trainer.max_steps=4"
    keep = [
        "--checkpoint.every_n_train_steps=2",
        "--checkpoint.save_top_k=-1",
        "--checkpoint.filename={step}",
    ]
    whole = fitted(graspl, "whole", model_folder, rows, longer, *keep)
    rest = fitted(
        graspl, "rest", model_folder, rows, longer, *keep, "--ckpt_path=whole/checkpoints/step=2.ckpt"
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(rest[name], tensor, msg=name)


@pytest.mark.slow
def test_a_null_space_in_four_bits_is_that_of_the_weights_they_stand_for(
    graspl, model_folder, write_rows, tmp_path
):
    """A reads what it would read in a model of these weights in full, and stays as it began while B learns."""
    from peft.utils.integrations import dequantize_module_weight
    from transformers import AutoModelForCausalLM

    rows, text = write_rows(CHAT_ROWS), write_rows(CHAT_ROWS[::-1] * 4, "text.jsonl")
    start = ["--model.start=graspl.starts.NullSpaceStart", "--model.lora.r=4", f"--data.text={text}"]
    saved = fitted(graspl, "short", model_folder, rows, *start)
    longer = fitted(graspl, "longer", model_folder, rows, *start, "--trainer.max_steps=4")
    full, base = (
        AutoModelForCausalLM.from_pretrained(model_folder),
        load_base_model(str(model_folder), load_in_4bit=True),
    )
    for name, module in base.named_modules():
        if type(module).__name__ == "Linear4bit":
            full.get_submodule(name).weight.data = dequantize_module_weight(module).float()
    full.save_pretrained(tmp_path / "full")
    make_tokenizer().save_pretrained(tmp_path / "full")
    whole = fitted(graspl, "whole", tmp_path / "full", rows, *start, "--model.load_in_4bit=false")
    for name in (each for each in saved if "lora_A" in each):
        torch.testing.assert_close(longer[name], saved[name], rtol=0, atol=0)
        B = name.replace("lora_A", "lora_B")
        assert not torch.equal(longer[B], saved[B])
        ours, theirs = (torch.linalg.qr(each[name].double().T)[0] for each in (saved, whole))
        shared = (ours.T @ theirs).square().sum() / ours.shape[1]  # 1 where they span the same
        assert shared > 0.999, name
