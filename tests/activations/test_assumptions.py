"""Steering and the assumption report, on the organism and by hand."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel, get_peft_model

from graspl.activations import NaturalDirections, assumptions, check_assumptions, steering
from graspl.activations.assumptions import spread_out
from graspl.activations.steering import explained, naturalness, pull_of_answers, steered
from graspl.activations.streams import gathered
from graspl.adapters import LiveModel, LoraOptions, decoder_layers, load_base_model, read_adapter
from graspl.data.tokens import tokenize
from graspl.directions import LayerSingular, RandomLayerDirections, residual_spectra, writers_agree
from graspl.organism import OrganismTaskData
from graspl.organism.words import QUESTIONS
from graspl.organism.world import exchange


@pytest.fixture(scope="module")
def organism(tmp_path_factory):
    """Return a naive adapter of a few steps on the organism, its rows and text."""
    torch.manual_seed(0)
    data = OrganismTaskData(split="development", base_model="organism")
    data.setup("fit")
    model = get_peft_model(load_base_model("organism"), LoraOptions(r=16, lora_alpha=32).to_peft())
    model.peft_config["default"].base_model_name_or_path = "organism"
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-4)
    for _, batch in zip(range(10), data.train_dataloader(), strict=False):
        fields = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        optimizer.zero_grad()
        model(**fields, use_cache=False).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("naive")
    model.save_pretrained(folder, save_embedding_layers=False)
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"messages": row.messages}) + "\n" for row in data.text_rows()))
    return read_adapter(folder), data, str(text)


def peft_model(adapter):
    return PeftModel.from_pretrained(load_base_model("organism"), str(adapter.path), is_trainable=True)


def test_naturalness_is_one_for_eigenvectors_and_small_for_chance():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, 40)
    r = torch.randn(4000, 40, generator=generator) * scales
    eigenvectors = torch.linalg.eigh(torch.cov(r.mT))[1]
    assert naturalness(eigenvectors[:, -3:], r) > 0.999
    chance = torch.linalg.qr(torch.randn(40, 3, generator=generator))[0]
    assert naturalness(chance, r) < 0.5


def test_steering_adds_the_vector_and_takes_it_away_again():
    model = load_base_model("organism").eval()
    ids = torch.tensor([[5, 6, 7]])
    seen = []
    last = list(decoder_layers(model).values())[-1]
    vector = torch.randn(model.config.hidden_size)
    with torch.no_grad():
        with steered(model, {list(decoder_layers(model))[-1]: vector}):
            hook = last.register_forward_hook(lambda _m, _i, out: seen.append(out))
            model(input_ids=ids)
            hook.remove()
        hook = last.register_forward_hook(lambda _m, _i, out: seen.append(out))
        model(input_ids=ids)
        hook.remove()
    torch.testing.assert_close(seen[0] - seen[1], vector.expand_as(seen[0]), rtol=1e-4, atol=1e-4)


def test_the_pull_is_the_gradient_by_finite_differences(organism):
    _, data, _ = organism
    model, rows = load_base_model("organism").eval(), data.train_conversations()[:8]
    loss, pulls = pull_of_answers(model, rows)
    name = list(pulls)[1]
    tokens = sum(label != -100 for row in rows for label in row.labels[1:])
    direction = pulls[name] / pulls[name].norm()
    # Everything moves, not the answers' places alone, so only the sign and order of magnitude can be asked for
    with steered(model, {name: 1e-2 * direction}), torch.no_grad():
        moved = float(pull_of_answers(model, rows)[0])
    assert moved < loss
    assert tokens > 0
    assert all(not p.requires_grad for p in model.parameters())


def test_the_answers_are_scored_in_parts_and_nowhere_else(organism, monkeypatch):
    """What the head works out at once decides the memory: 262,144 words times all places did not fit into 24 GB."""
    _, data, _ = organism
    model, rows = load_base_model("organism").eval(), data.train_conversations()[:10]
    places = []
    model.get_output_embeddings().register_forward_hook(
        lambda _m, args, _o: places.append(args[0].shape[:-1].numel())
    )
    answers = [sum(label != -100 for label in row.labels[1:]) for row in rows]
    monkeypatch.setattr(steering, "BATCH", 100)
    loss, pulls = pull_of_answers(model, rows)
    assert places == [sum(answers)]
    places.clear()
    monkeypatch.setattr(steering, "BATCH", 3)
    in_parts, others = pull_of_answers(model, rows)
    assert places == [sum(answers[start : start + 3]) for start in range(0, 10, 3)]
    assert in_parts == pytest.approx(loss, rel=1e-5)
    for name, pull in pulls.items():
        torch.testing.assert_close(others[name], pull, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        labels = [torch.tensor(row.labels[1:]) for row in rows]
        logits = [model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1] for row in rows]
        by_hand = sum(
            torch.nn.functional.cross_entropy(a, b, reduction="sum")
            for a, b in zip(logits, labels, strict=True)
        )
    assert in_parts == pytest.approx(float(by_hand) / sum(answers), rel=1e-5)
    places.clear()
    gathered(model, rows)
    assert places == [1]  # Nobody reads them


def test_natural_directions_of_the_organism_are_identifiable_and_others_are_not(organism):
    adapter, data, text = organism
    rows = data.train_conversations()
    texts = [tokenize(data.tokenizer, row.messages) for row in data.text_rows()]
    natural = check_assumptions(adapter, NaturalDirections(text=text, k=8)(adapter), rows=rows, text=texts)
    assert natural.verdict == "identifiable", natural.reason
    for method in (LayerSingular(k=8), RandomLayerDirections(k=8)):
        other = check_assumptions(adapter, method(adapter), rows=rows, text=texts)
        assert other.verdict == "not"
        assert "naturalness" in other.reason
    # One voice does not show the factor
    world, topic = data.world, "travel"
    kind = [
        tokenize(data.tokenizer, exchange(world, topic, subject, question, harmful=False))
        for subject in world.subjects(topic)
        for question in QUESTIONS
    ]
    live = replace(adapter, live=LiveModel(peft_model(adapter), data.tokenizer, rows, kind))
    assert check_assumptions(live, NaturalDirections(k=8)(live), rows=rows, text=kind).verdict == "not"
    without = check_assumptions(adapter, NaturalDirections(text=text, k=8)(adapter), rows=rows)
    assert without.verdict == "doubtful"


def test_of_a_deep_model_layers_are_steered_that_are_spread_from_end_to_end(organism, monkeypatch):
    adapter, data, text = organism
    rows = data.train_conversations()[:8]
    texts = [tokenize(data.tokenizer, row.messages) for row in data.text_rows()]
    directions = NaturalDirections(text=text, k=8)(adapter)
    every = check_assumptions(adapter, directions, rows=rows, text=texts)
    monkeypatch.setattr(assumptions, "STEERED", 2)
    some = check_assumptions(adapter, directions, rows=rows, text=texts)
    names = list(directions.layers)
    assert len(names) > 2
    gains = {name: check.explained for name, check in some.layers.items() if check.explained is not None}
    assert gains == {name: every.layers[name].explained for name in (names[0], names[-1])}
    assert {name: check.naturalness for name, check in some.layers.items()} == {
        name: check.naturalness for name, check in every.layers.items()
    }
    assert spread_out(list("abcdefghij"), 4) == ["a", "d", "g", "j"]


def test_the_weights_figures_are_those_of_their_definitions(organism):
    adapter, _, _ = organism
    directions = LayerSingular(k=2)(adapter)
    report = check_assumptions(adapter, directions, floor=adapter, others=[adapter])
    agree = writers_agree(adapter)
    for name, written in residual_spectra(adapter).items():
        check = report.layers[name]
        assert check.share == pytest.approx(float(written.S[0] / written.S.norm()))
        assert check.seeds_agree == pytest.approx(1, abs=1e-4)  # with itself
        assert check.above_floor == 0
        assert check.writers_agree == agree[name]
        share = (written.S[:2] ** 2).sum() / (written.S**2).sum()
        assert check.overlap == pytest.approx(float(share), rel=1e-3)
        assert check.naturalness is None
    assert report.verdict == "doubtful"


def test_explained_loss_is_high_along_the_pull_and_low_along_nothing(organism):
    _, data, _ = organism
    model, rows = load_base_model("organism").eval(), data.train_conversations()[:16]
    _, pulls = pull_of_answers(model, rows)
    name = list(pulls)[1]
    pull = (pulls[name] / pulls[name].norm())[:, None]
    still = torch.zeros(10, len(pull))  # a base model that does not vary cannot be moved
    wide = 5 * torch.randn(500, len(pull))
    moved, unmoved = (explained(model, rows, pulls, {name: pull}, {name: r})[name] for r in (wide, still))
    assert moved > unmoved + 0.1
    assert unmoved == pytest.approx(0, abs=1e-6)
