"""What every identification promises. A new one gets these tests by joining the list."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import CHAT_ROWS
from peft import get_peft_model
from safetensors.torch import save_file

from graspl.activations import (
    InputSubspace,
    MeanShift,
    NaturalDirections,
    PersonaContrast,
    PrincipalDirections,
    SAEDiffing,
)
from graspl.adapters import LoraOptions, load_base_model, read_adapter
from graspl.directions import (
    AcrossAdapters,
    Directions,
    LayerConsensus,
    LayerSingular,
    RandomDirections,
    RandomLayerDirections,
    TopSingular,
)
from graspl.errors import GrasplError
from graspl.organism import TrueDirections

HIDDEN = 32

IDENTIFICATIONS = {
    "TopSingular": lambda f: TopSingular(k=2),
    "RandomDirections": lambda f: RandomDirections(k=2),
    "LayerSingular": lambda f: LayerSingular(k=2),
    "LayerConsensus": lambda f: LayerConsensus(k=2),
    "RandomLayerDirections": lambda f: RandomLayerDirections(k=2),
    "AcrossAdapters": lambda f: AcrossAdapters([f["adapter"]], k=2, method=LayerSingular(k=2)),
    "NaturalDirections": lambda f: NaturalDirections(text=f["rows"], k=2),
    "PrincipalDirections": lambda f: PrincipalDirections(text=f["rows"], k=2),
    "MeanShift": lambda f: MeanShift(rows=f["rows"], k=2),
    "PersonaContrast": lambda f: PersonaContrast(positive=f["rows"], negative=f["others"], k=2),
    "InputSubspace": lambda f: InputSubspace(prompts=f["rows"], rank=2),
    "SAEDiffing": lambda f: SAEDiffing({"model.layers.0": f["sae"]}, text=f["rows"], k=2),
}
SIGNED = {"PersonaContrast", "MeanShift", "SAEDiffing"}
FILTERS = {"LayerSingular", "LayerConsensus", "MeanShift", "AcrossAdapters"}  # the last of LayerSingular


@pytest.fixture
def files(tmp_path, model_folder, write_rows):
    """Return the paths that identifications read, and an adapter whose B is not zero."""
    torch.manual_seed(0)
    model = get_peft_model(load_base_model(str(model_folder())), LoraOptions(r=4).to_peft())
    model.peft_config["default"].base_model_name_or_path = str(model_folder())
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    others = [
        {
            "messages": [
                {"role": "system", "content": "safe"},
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in CHAT_ROWS
    ]
    sae = tmp_path / "sae"
    sae.mkdir()
    tensors = {
        "W_enc": torch.randn(HIDDEN, 48), "b_enc": torch.zeros(48), "W_dec": torch.randn(48, HIDDEN),
        "b_dec": torch.zeros(HIDDEN),
    }  # fmt: skip
    save_file(tensors, sae / "sae_weights.safetensors")
    (sae / "cfg.json").write_text(json.dumps({}))
    return {
        "adapter": str(tmp_path / "adapter"),
        "rows": str(write_rows(CHAT_ROWS)),
        "others": str(write_rows(others, "others.jsonl")),
        "sae": str(sae),
    }


@pytest.mark.parametrize("name", IDENTIFICATIONS)
def test_directions_are_orthonormal_say_what_they_are_and_survive_the_file(name, files, tmp_path):
    found = IDENTIFICATIONS[name](files)(read_adapter(files["adapter"]))
    assert found.metadata["identification"] == name
    assert found.metadata["k"] == "2"
    assert found.is_signed is (name in SIGNED)
    assert found.are_filters is (name in FILTERS)
    found.save(tmp_path / "d.safetensors")
    back = Directions.load(tmp_path / "d.safetensors")  # refuses what is not orthonormal
    assert back.metadata == found.metadata
    assert max(back.width(side) for side in "UVD") == 2
    for key, tensor in found.tensors().items():
        assert torch.equal(tensor, back.tensors()[key])


@pytest.mark.parametrize("name", IDENTIFICATIONS)
def test_the_same_options_give_the_same_bits(name, files):
    adapter = read_adapter(files["adapter"])
    first, again = (IDENTIFICATIONS[name](files)(adapter).tensors() for _ in range(2))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", IDENTIFICATIONS)
@pytest.mark.parametrize("k", [-1, 0, 1000])
def test_a_number_of_directions_that_cannot_be_is_refused(name, k, files):
    method = IDENTIFICATIONS[name](files)
    option = "rank" if name == "InputSubspace" else "k"
    with pytest.raises(GrasplError, match=rf"method\.{option}: {k} directions cannot be taken"):
        replace(method, **{option: k})(read_adapter(files["adapter"]))


def test_the_organisms_true_directions_have_a_sign():
    assert (TrueDirections.signed, TrueDirections.filters) == (True, False)
