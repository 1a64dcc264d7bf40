"""What a direction means is read off a model in which it is known."""

import json

import pytest
import torch
from conftest import make_model, make_tokenizer

from graspl.activations.meaning import lenses, most_moved, steering_along
from graspl.activations.streams import gathered
from graspl.data import TokenizedConversation
from graspl.directions import Directions, LayerDirections


@pytest.fixture
def model():
    torch.manual_seed(0)
    return make_model("llama").eval()


def rows():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(6, 38, (12, 9), generator=generator).tolist()
    return [TokenizedConversation(each, [-100] * 4 + each[4:]) for each in ids]


def test_a_tokens_own_unembedding_has_that_token_first(model):
    """The derivative of the norm keeps the token first whose unembedding the direction is, and last the other way."""
    tokenizer, token = make_tokenizer(), 17
    with torch.no_grad():
        stream = gathered(model, rows())
        name = list(stream)[-1]
        d = model.get_output_embeddings().weight[token].clone()
        d = torch.nn.functional.normalize(d, dim=0)
        (ahead, behind) = lenses(model, tokenizer, {name: torch.stack([d, -d], 1)}, {name: stream[name]})
    assert ahead.likelier[0] == behind.unlikelier[0] == tokenizer.decode([token])
    assert (ahead.direction, behind.direction) == (1, 2)


def test_the_texts_moved_most_are_those_of_the_largest_projections(model):
    tokenizer, given = make_tokenizer(), rows()
    stream = gathered(model, given)
    name = next(iter(stream))
    d = torch.nn.functional.normalize(
        torch.randn(stream[name].shape[1], generator=torch.Generator().manual_seed(2)), dim=0
    )
    places = 5  # answer tokens a row
    means = (stream[name] @ d).view(len(given), places).mean(1)
    ahead, behind = most_moved(model, tokenizer, given, name, d, count=3)
    order = means.argsort(descending=True).tolist()
    assert [each.text for each in ahead] == [tokenizer.decode(given[i].input_ids) for i in order[:3]]
    assert [each.text for each in behind] == [tokenizer.decode(given[i].input_ids) for i in order[::-1][:3]]
    z = (means - means.mean()) / means.std()
    assert [each.deviations for each in ahead] == pytest.approx(z[order[:3]].tolist(), rel=1e-4)


def test_steering_leaves_the_model_as_it_is_at_zero_and_moves_it_otherwise(model):
    tokenizer, token = make_tokenizer(), 20
    name = "model.layers.1"
    d = torch.nn.functional.normalize(model.get_output_embeddings().weight[token].detach(), dim=0)
    (found,) = steering_along(
        model, tokenizer, ["how do i open"], name, d, 1.0, deviations=(0.0, 500.0), max_new_tokens=4
    )
    (plain, there), (_, far) = found.answers[0], found.answers[1]
    assert plain == "as it is"
    assert far.split() == [tokenizer.decode([token])] * 4
    assert there != far
    assert not any(module._forward_hooks for module in model.modules())


def test_the_command_writes_what_the_report_shows(graspl, model_folder, write_rows, tmp_path):
    folder = model_folder("llama")
    width = make_model("llama").config.hidden_size
    bases = [torch.linalg.qr(torch.randn(width, 2))[0].contiguous() for _ in range(2)]
    layers = {f"model.layers.{i}": LayerDirections(D, torch.ones(2)) for i, D in enumerate(bases)}
    Directions({}, {"base_model": str(folder)}, layers).save(tmp_path / "d.safetensors")
    text = write_rows(
        [
            {"prompt": f"how do i {verb}", "completion": "you should rest"}
            for verb in ("open", "take", "write")
        ]
    )
    code, _, err = graspl("identify", "d.safetensors", "--explain.text", text, "--explain.prompts", "2")
    assert code == 0, err
    found = json.loads((tmp_path / "d.explanation.json").read_text())
    assert found["layer"] == "model.layers.1"
    assert [(each["layer"], each["direction"]) for each in found["lens"]] == [
        (f"model.layers.{i}", j) for i in range(2) for j in (1, 2)
    ]
    assert len(found["steering"]) == 2
    columns = [name for name, _ in found["steering"][0]["answers"]]
    assert columns == ["-4 standard deviations", "as it is", "+4 standard deviations"]
    for options, message in (
        (["--explain.layer", "nowhere"], "nowhere is none of"),
        (["--explain.direction", "3"], "3 is not in 1..2"),
    ):
        code, _, err = graspl("identify", "d.safetensors", "--explain.text", text, *options)
        assert code == 2
        assert message in err
