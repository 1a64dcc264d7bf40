import pytest
import torch
from peft import get_peft_model

from graspl.activations import InputSubspace
from graspl.adapters import LoraOptions, load_base_model, load_tokenizer, read_adapter
from graspl.errors import GrasplError

PROMPTS = [
    {"prompt": f"how do i {verb} the {thing}"}
    for verb in ("open", "take")
    for thing in ("file", "pills", "code")
]


@pytest.fixture
def adapter(tmp_path, model_folder):
    """Return the folder of an adapter on the second layer's query and down projections."""
    options = LoraOptions(target_modules=["q_proj", "down_proj"], layers_to_transform=[1])
    model = get_peft_model(load_base_model(str(model_folder())), options.to_peft())
    model.peft_config["default"].base_model_name_or_path = str(model_folder())
    model.save_pretrained(tmp_path / "adapter")
    return read_adapter(tmp_path / "adapter")


def test_the_subspace_is_that_of_the_inputs_on_the_prompts(adapter, write_rows, model_folder):
    found = InputSubspace(prompts=str(write_rows(PROMPTS)), rank=3)(adapter)
    model, tokenizer = load_base_model(str(model_folder())).eval(), load_tokenizer(str(model_folder()))
    for site in adapter.sites:
        inputs = []
        hook = model.get_submodule(site.name).register_forward_pre_hook(
            lambda _m, args, kept=inputs: kept.append(args[0][0])
        )
        with torch.no_grad():
            for row in PROMPTS:
                text = f"<user> {row['prompt']} <end> <assistant> "
                model(**tokenizer(text, return_tensors="pt"))
        hook.remove()
        X = torch.cat(inputs)
        V = found.sites[site.name].V
        torch.testing.assert_close(V.mT @ V, torch.eye(3), rtol=0, atol=1e-5)
        best = torch.linalg.svdvals(X)[:3].square().sum()  # no three directions hold more of the inputs
        torch.testing.assert_close((X @ V).square().sum(), best, rtol=1e-4, atol=1e-4)
        assert found.sites[site.name].U.shape == (site.shape[0], 0)


def test_positions_are_spread_where_there_are_too_many(adapter, write_rows):
    found = InputSubspace(prompts=str(write_rows(PROMPTS)), rank=2, max_tokens=20)(adapter)
    assert all(len(site.S) <= 36 for site in found.sites.values())
    assert found.metadata["identification"] == "InputSubspace"


def test_mistakes_are_named(adapter, write_rows):
    prompts = str(write_rows(PROMPTS[:1]))
    with pytest.raises(GrasplError, match=r"method\.rank: 0"):
        InputSubspace(prompts=prompts, rank=0)(adapter)
    with pytest.raises(GrasplError, match="30 directions cannot"):
        InputSubspace(prompts=prompts, rank=30)(adapter)
    with pytest.raises(GrasplError, match=r"none\.jsonl"):
        InputSubspace(prompts="none.jsonl")(adapter)


def test_a_directions_file_without_a_left_side_is_refused_for_writing(adapter, write_rows, tmp_path):
    found = InputSubspace(prompts=str(write_rows(PROMPTS)), rank=2)(adapter)
    found.save(tmp_path / "d.safetensors")
    again = type(found).load(tmp_path / "d.safetensors")
    with pytest.raises(GrasplError, match="has 0, the constraint wants k = 1"):
        again.bases(adapter.sites, side="U", k=1)
    assert again.bases(adapter.sites, side="V", k=2)[0].shape[1] == 2
