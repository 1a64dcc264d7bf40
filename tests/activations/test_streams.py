"""Directions from activations, on a tiny real model and against closed forms."""

from dataclasses import replace

import pytest
import torch
from conftest import CHAT_ROWS, make_tokenizer
from peft import get_peft_model

from graspl.activations import MeanShift, NaturalDirections, PersonaContrast, PrincipalDirections
from graspl.activations.natural import patterns
from graspl.activations.streams import streams
from graspl.adapters import LiveModel, LoraOptions, decoder_layers, load_base_model, read_adapter
from graspl.data.rows import read_conversations
from graspl.data.tokens import tokenize
from graspl.directions import LayerSingular
from graspl.errors import GrasplError


@pytest.fixture
def adapter(tmp_path, model_folder):
    """Return an adapter whose B is not zero."""
    torch.manual_seed(0)
    model = get_peft_model(load_base_model(str(model_folder())), LoraOptions(r=4).to_peft())
    model.peft_config["default"].base_model_name_or_path = str(model_folder())
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    return read_adapter(tmp_path / "adapter")


@pytest.fixture
def live(adapter, model_folder, write_rows):
    """Return the same adapter on a model in memory, with rows and text."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(
        load_base_model(str(model_folder())), str(adapter.path), is_trainable=True
    )
    rows = rows_of(write_rows)
    return replace(adapter, live=LiveModel(model, make_tokenizer(), rows, rows))


def rows_of(write_rows):
    return [
        tokenize(make_tokenizer(), row.messages) for row in read_conversations(str(write_rows(CHAT_ROWS)))
    ]


def stream_of(model, rows):
    parts = {}
    with torch.no_grad():
        for each in streams(model, rows, batch_size=3):
            for layer, r in each.items():
                parts.setdefault(layer, []).append(r)
    return {layer: torch.cat(each) for layer, each in parts.items()}


def test_the_stream_is_the_hidden_state_before_each_answer_token(model_folder, write_rows):
    model, rows = load_base_model(str(model_folder())).eval(), rows_of(write_rows)
    found = stream_of(model, rows)
    wanted = []
    with torch.no_grad():
        for row in rows:
            states = model(input_ids=torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states[
                1
            ][0]
            wanted += [states[place - 1] for place, label in enumerate(row.labels) if label != -100 and place]
    torch.testing.assert_close(found["model.layers.0"], torch.stack(wanted), rtol=1e-4, atol=1e-4)
    assert list(found) == list(decoder_layers(model))


def test_moments_equal_the_covariance_times_the_filters():
    r = torch.randn(50, 7, dtype=torch.float64) * torch.arange(1.0, 8.0) + 30
    U = torch.linalg.qr(torch.randn(7, 3))[0]
    found = patterns({"layer": U}, ({"layer": part} for part in r.split(11)))
    covariance = torch.cov(r.mT, correction=0)
    torch.testing.assert_close(found["layer"], covariance @ U.double(), rtol=1e-9, atol=1e-6)


def test_natural_directions_span_the_patterns_and_a_smaller_k_is_their_start(
    adapter, live, model_folder, write_rows
):
    found = NaturalDirections(text=str(write_rows(CHAT_ROWS)), k=3)(adapter)
    filters = LayerSingular(k=3)(adapter)
    base = stream_of(load_base_model(str(model_folder())).eval(), rows_of(write_rows))
    for name, layer in found.layers.items():
        pattern = torch.cov(base[name].mT.double(), correction=0) @ filters.layers[name].D.double()
        inside = layer.D.double() @ (layer.D.double().mT @ pattern)
        torch.testing.assert_close(inside, pattern, rtol=0, atol=1e-4 * float(pattern.norm()))
        first = pattern[:, 0] / pattern[:, 0].norm()
        assert abs(float(first @ layer.D[:, 0].double())) > 1 - 1e-5
        assert not torch.allclose(layer.D, filters.layers[name].D, atol=0.1)  # a pattern is no filter
    assert (found.is_signed, found.are_filters) == (False, False)
    in_memory = NaturalDirections(k=3)(live)
    for name, layer in in_memory.layers.items():
        torch.testing.assert_close(layer.D.abs(), found.layers[name].D.abs(), rtol=1e-3, atol=1e-3)


def test_principal_directions_hold_the_most_variance(adapter, model_folder, write_rows):
    found = PrincipalDirections(text=str(write_rows(CHAT_ROWS)), k=2)(adapter)
    base = stream_of(load_base_model(str(model_folder())).eval(), rows_of(write_rows))
    for name, layer in found.layers.items():
        r = base[name] - base[name].mean(0)
        best = torch.linalg.svdvals(r)[:2].square().sum()
        torch.testing.assert_close((r @ layer.D).square().sum(), best, rtol=1e-3, atol=1e-3)


def test_the_mean_shift_is_the_difference_that_the_adapter_makes(adapter, live, write_rows):
    found = MeanShift(rows=str(write_rows(CHAT_ROWS)), k=2)(adapter)
    model = live.live.model.eval()
    with_adapter = stream_of(model, live.live.rows)
    with model.disable_adapter():
        without = stream_of(model, live.live.rows)
    for name, layer in found.layers.items():
        shift = with_adapter[name] - without[name]
        assert shift.mean(0) @ layer.D[:, 0] > 0  # the sign
        assert shift.norm() > 1e-3
        best = torch.linalg.svdvals(shift)[:2].square().sum()
        torch.testing.assert_close((shift @ layer.D).square().sum(), best, rtol=1e-3, atol=1e-5)
    assert (found.is_signed, found.are_filters) == (True, True)
    with pytest.raises(GrasplError, match="names no conversations"):
        MeanShift()(adapter)


def test_a_live_model_is_left_as_it_was(live):
    model = live.live.model.train()
    ids = torch.tensor([live.live.rows[0].input_ids])
    before = model(input_ids=ids).logits
    for method in (NaturalDirections(k=2), MeanShift(), PrincipalDirections(k=2)):
        method(live)
        assert model.training
        assert torch.equal(model(input_ids=ids).logits, before)


def test_a_contrast_finds_what_sets_the_pairs_apart(adapter, write_rows, model_folder):
    def rows(system):
        every = read_conversations(str(write_rows(CHAT_ROWS)))
        return [{"messages": [{"role": "system", "content": system}, *row.messages]} for row in every]

    yes, no = str(write_rows(rows("yes"), "yes.jsonl")), str(write_rows(rows("no"), "no.jsonl"))
    found = PersonaContrast(positive=yes, negative=no, k=1)(adapter)
    tokenized = [
        [tokenize(make_tokenizer(), row.messages) for row in read_conversations(source)]
        for source in (yes, no)
    ]
    model = load_base_model(str(model_folder())).eval()
    with_, without = (stream_of(model, each) for each in tokenized)
    for name, layer in found.layers.items():
        difference = with_[name] - without[name]
        best = torch.linalg.svdvals(difference)[0]
        torch.testing.assert_close((difference @ layer.D).norm(), best, rtol=1e-3, atol=1e-5)
    assert (found.is_signed, found.are_filters) == (True, False)
    with pytest.raises(GrasplError, match="must have as many answer tokens"):
        PersonaContrast(positive=yes, negative=str(write_rows(rows("no")[:1], "one.jsonl")))(adapter)


def test_text_that_cannot_be_used_is_named(adapter, write_rows):
    with pytest.raises(GrasplError, match="names no conversations"):
        NaturalDirections(k=2)(adapter)
    with pytest.raises(GrasplError, match=r"none\.jsonl"):
        NaturalDirections(text="none.jsonl", k=2)(adapter)
    one = str(write_rows([{"prompt": "how", "completion": "yes"}], "one.jsonl"))
    with pytest.raises(GrasplError, match="varies too little"):
        NaturalDirections(text=one, k=4)(adapter)
    with pytest.raises(GrasplError, match="4 directions cannot be taken"):
        PrincipalDirections(text=one, k=4)(adapter)
