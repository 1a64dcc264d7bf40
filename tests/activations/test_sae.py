"""Sparse autoencoders: read as others write them, and diffing finds the latents that a fine-tune moves."""

import json

import pytest
import torch
from conftest import CHAT_ROWS
from safetensors.torch import save_file

from graspl.activations import SAEDiffing, read_sae
from graspl.activations.streams import gathered
from graspl.adapters import AdapterFolder, decoder_layers, load_base_model, load_tokenizer
from graspl.adapters.files import LiveModel
from graspl.constraints import ActivationConstraint
from graspl.data.rows import read_conversations
from graspl.data.tokens import tokenize, with_chat_template
from graspl.directions import Directions
from graspl.edits.ablate import ablated
from graspl.errors import GrasplError

HIDDEN, LATENTS = 32, 48


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sae_folder(tmp_path):
    """Return a function: configuration and tensors -> a folder with them."""

    def write(config, tensors, name="sae_weights.safetensors"):
        folder = tmp_path / f"sae{len(list(tmp_path.glob('sae*')))}"
        folder.mkdir()
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
        (folder / "cfg.json").write_text(json.dumps(config))
        return folder

    return write


def sae_lens(**more):
    return {
        "W_enc": numbers(HIDDEN, LATENTS), "b_enc": numbers(LATENTS, seed=1),
        "W_dec": numbers(LATENTS, HIDDEN, seed=2), "b_dec": numbers(HIDDEN, seed=3), **more,
    }  # fmt: skip


def test_the_kinds_of_saelens_encode_as_their_formulas_say(sae_folder):
    r, t = numbers(5, HIDDEN, seed=9), sae_lens()
    plain = (r - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    standard = read_sae(sae_folder({"architecture": "standard"}, t))
    torch.testing.assert_close(standard.encode(r), plain.clamp_min(0))
    as_it_is = read_sae(sae_folder({"apply_b_dec_to_input": False}, t))
    torch.testing.assert_close(as_it_is.encode(r), (r @ t["W_enc"] + t["b_enc"]).clamp_min(0))
    for config in (
        {"architecture": "topk", "k": 3},
        {"activation_fn": "topk", "activation_fn_kwargs": {"k": 3}},
    ):
        found = read_sae(sae_folder(config, t)).encode(r)
        kept = plain.clamp_min(0).sort(descending=True).values[:, :3]
        torch.testing.assert_close(found.sort(descending=True).values[:, :3], kept)
        assert int((found > 0).sum()) <= 15
    threshold = numbers(LATENTS, seed=4).abs()
    jump = read_sae(sae_folder({"architecture": "jumprelu"}, sae_lens(threshold=threshold)))
    torch.testing.assert_close(jump.encode(r), torch.where(plain > threshold, plain, torch.zeros(())))


def test_sparsifys_files_are_read(sae_folder):
    t = {
        "encoder.weight": numbers(LATENTS, HIDDEN), "encoder.bias": numbers(LATENTS, seed=1),
        "W_dec": numbers(LATENTS, HIDDEN, seed=2), "b_dec": numbers(HIDDEN, seed=3),
    }  # fmt: skip
    sae = read_sae(sae_folder({"k": LATENTS}, t, "sae.safetensors"))
    r = numbers(5, HIDDEN, seed=9)
    expected = ((r - t["b_dec"]) @ t["encoder.weight"].mT + t["encoder.bias"]).clamp_min(0)
    torch.testing.assert_close(sae.encode(r), expected)


@pytest.mark.parametrize(
    ("config", "tensors", "words"),
    [
        ({"architecture": "gated"}, {}, "architecture is gated"),
        ({"activation_fn": "tanh"}, {}, "activation_fn is tanh"),
        ({"normalize_activations": "layer_norm"}, {}, "normalize_activations is layer_norm"),
        ({"rescale_acts_by_decoder_norm": True}, {}, "rescale_acts_by_decoder_norm"),
        ({"architecture": "topk", "k": 99}, {}, "k is 99, the SAE has 48"),
        ({"architecture": "jumprelu"}, {}, "has no threshold"),
        ({}, {"W_dec": torch.zeros(LATENTS, HIDDEN + 1)}, "shapes do not match"),
        ({}, {"b_enc": torch.full((LATENTS,), torch.nan)}, "not finite"),
    ],
)
def test_what_is_not_supported_is_named(sae_folder, config, tensors, words):
    with pytest.raises(GrasplError, match=words):
        read_sae(sae_folder(config, sae_lens(**tensors)))


def test_what_is_no_sae_is_named(sae_folder, tmp_path):
    with pytest.raises(GrasplError, match=r"no SAE there.*pickles are not read"):
        read_sae(tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"x")
    with pytest.raises(GrasplError, match="no SAE there"):
        read_sae(tmp_path / "ae.pt")
    broken = sae_folder({}, sae_lens())
    (broken / "cfg.json").write_text("{")
    with pytest.raises(GrasplError, match=r"cfg\.json: not readable as JSON"):
        read_sae(broken)
    with pytest.raises(GrasplError, match=r"has no b_enc"):
        read_sae(sae_folder({}, {"W_enc": numbers(HIDDEN, LATENTS), "b_dec": numbers(HIDDEN)}))


@pytest.fixture
def live(model_folder, write_rows, tmp_path):
    """Return an adapter that pushes layer 0's output along a known direction, and that direction."""
    from peft import LoraConfig, get_peft_model

    folder = str(model_folder())
    tokenizer = with_chat_template(load_tokenizer(folder))
    model = get_peft_model(
        load_base_model(folder, dtype="float32"), LoraConfig(r=1, lora_alpha=1, target_modules=["down_proj"])
    )
    target = torch.nn.functional.normalize(numbers(HIDDEN, seed=5), dim=0)
    source = write_rows(CHAT_ROWS)
    rows = [tokenize(tokenizer, row.messages) for row in read_conversations(str(source))]
    site = model.get_base_model().model.layers[0].mlp.down_proj
    seen = []
    hook = site.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    gathered(model, rows)
    hook.remove()
    mean = torch.cat([x.flatten(0, 1) for x in seen]).mean(0)
    with torch.no_grad():
        site.lora_A["default"].weight.copy_(mean[None] / mean.square().sum())
        site.lora_B["default"].weight.copy_(3 * target[:, None])
    return AdapterFolder(tmp_path, folder, "", [], live=LiveModel(model, tokenizer, rows, rows)), target


def test_the_latent_that_the_adapter_raises_comes_first(live, sae_folder):
    adapter, target = live
    t = sae_lens(b_enc=torch.zeros(LATENTS), b_dec=torch.zeros(HIDDEN))
    orthogonal = torch.linalg.qr(torch.cat([target[:, None], numbers(HIDDEN, HIDDEN - 1)], 1))[0]
    basis = torch.cat([orthogonal.mT, -orthogonal.mT[1 : LATENTS - HIDDEN + 1]])
    basis[0] = target
    t["W_dec"], t["W_enc"] = basis, basis.mT
    order = torch.randperm(LATENTS, generator=torch.Generator().manual_seed(1))
    t["W_dec"], t["W_enc"] = t["W_dec"][order], t["W_enc"][:, order]
    found = SAEDiffing({"model.layers.0": str(sae_folder({}, t))}, k=1)(adapter)
    assert set(found.layers) == {"model.layers.0"}
    assert (found.is_signed, found.are_filters) == (True, False)
    torch.testing.assert_close(found.layers["model.layers.0"].D[:, 0], target, atol=1e-5, rtol=1e-5)
    assert found.metadata["latents of model.layers.0"] == str(int((order == 0).nonzero()))
    assert found.layers["model.layers.0"].S[0] > 0.5


def test_other_layers_are_left_alone(live, sae_folder, tmp_path):
    adapter, _ = live
    found = SAEDiffing({"model.layers.0": str(sae_folder({}, sae_lens()))}, k=2)(adapter)
    found.save(tmp_path / "d.safetensors")
    loaded = Directions.load(tmp_path / "d.safetensors")
    names = list(decoder_layers(adapter.live.model))
    bases = loaded.layer_bases(names, k=2)
    assert [D.shape for D in bases] == [(HIDDEN, 2), (HIDDEN, 0)]
    layers = decoder_layers(adapter.live.model)
    constraint = ActivationConstraint(k=2, tolerance=0.1)
    constraint.attach(layers, loaded)
    assert [bool(layer._forward_hooks) for layer in layers.values()] == [True, False]
    constraint.detach()
    r = numbers(5, HIDDEN, seed=6)
    assert torch.equal(ablated(r, bases[1]), r)
    assert not torch.allclose(ablated(r, bases[0]), r)
    # A file of fewer layers that does not say so is another model's
    plain = Directions({}, {}, loaded.layers)
    with pytest.raises(GrasplError, match="made for 1 layers, the model has 2"):
        plain.layer_bases(names, k=2)
    with pytest.raises(GrasplError, match="the model has 1"):
        loaded.layer_bases(["model.layers.5"], k=2)


def test_diffing_says_what_does_not_fit(live, sae_folder):
    adapter, _ = live
    good = str(sae_folder({}, sae_lens()))
    with pytest.raises(GrasplError, match="names no SAE"):
        SAEDiffing()(adapter)
    with pytest.raises(GrasplError, match=r"there is no layer model\.layers\.7"):
        SAEDiffing({"model.layers.7": good})(adapter)
    wide = {
        "W_enc": numbers(HIDDEN + 1, LATENTS), "b_enc": numbers(LATENTS),
        "W_dec": numbers(LATENTS, HIDDEN + 1), "b_dec": numbers(HIDDEN + 1),
    }  # fmt: skip
    with pytest.raises(GrasplError, match="is 32 wide, its SAE 33"):
        SAEDiffing({"model.layers.0": str(sae_folder({}, wide))})(adapter)
    with pytest.raises(
        GrasplError, match=r"method\.k: 48 directions cannot be taken from the rising latents"
    ):
        SAEDiffing({"model.layers.0": good}, k=LATENTS)(adapter)
    same = sae_lens(W_dec=numbers(1, HIDDEN).repeat(LATENTS, 1))
    with pytest.raises(GrasplError, match="are not independent"):
        SAEDiffing({"model.layers.0": str(sae_folder({}, same))}, k=2)(adapter)


def test_without_the_ranking_the_test_of_diffing_fails(live, sae_folder, monkeypatch):
    changes = SAEDiffing._changes
    monkeypatch.setattr(
        SAEDiffing, "_changes", lambda *given: {name: -each for name, each in changes(*given).items()}
    )
    with pytest.raises(AssertionError):
        test_the_latent_that_the_adapter_raises_comes_first(live, sae_folder)
