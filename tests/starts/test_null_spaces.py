"""A start from null spaces of what sites read: its maths by hand, and fits of a tiny model."""

import json
from functools import partial
from typing import get_args

import pytest
import torch
from fits import adam, every_factor, same, train
from lightning import seed_everything

import graspl.starts.null_space as null_space
from graspl.adapters import LoraOptions
from graspl.errors import GrasplError
from graspl.methods import LoRALitModule
from graspl.starts import NullSpaceStart
from graspl.starts.bases import Kind, inputs_of, largest_quotients
from graspl.starts.moments import Moments, gradients_of, moments_of
from graspl.starts.response import responses


def tokens(count, size, *, seed):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(x):
    return x.mT @ x / len(x)


def same_span(ours, theirs):
    ours, theirs = (torch.linalg.qr(each)[0] for each in (ours, theirs))
    torch.testing.assert_close(ours @ ours.mT, theirs @ theirs.mT)


# Its maths


def both(task, general, *, sampled):
    """Return the moments of two sets of tokens, of a sample or whole."""
    return tuple(Moments(sample=x) if sampled else Moments(whole=moments(x)) for x in (task, general))


def test_the_inputs_solve_the_generalized_eigenproblem():
    task, general = moments(tokens(30, 12, seed=0)), moments(tokens(40, 12, seed=1))
    c = 1e-3 * float(general.diagonal().mean())
    found, values = largest_quotients(task, general, 4, c)
    L = torch.linalg.cholesky(general + c * torch.eye(12))
    whitened = torch.linalg.solve(L, torch.linalg.solve(L, task).mT)
    expected, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    torch.testing.assert_close(values, expected[-4:].flip(0))
    torch.testing.assert_close(found.mT @ (L @ L.mT) @ found, torch.eye(4, dtype=torch.float64))
    same_span(found, torch.linalg.solve(L.mT, vectors[:, -4:]))


def test_what_general_text_uses_is_not_read():
    quiet, loud = torch.eye(6, dtype=torch.float64)[:, :2], torch.eye(6, dtype=torch.float64)[:, 2:]
    task = quiet @ quiet.mT + loud @ loud.mT
    found, values = largest_quotients(task, 5 * loud @ loud.mT, 2, 1e-6)
    assert (loud.mT @ torch.linalg.qr(found)[0]).abs().max() < 1e-6
    assert values.min() > 1e5


def test_the_gradient_kind_is_the_best_bounded_step():
    """max <G, dW> subject to E_general ||dW x||^2 <= e has dW = G (S + c I)^-1, and the start its leading right side."""
    G, general = tokens(9, 12, seed=11), moments(tokens(40, 12, seed=12))
    c = 1e-2 * float(general.diagonal().mean())
    held = general + c * torch.eye(12)
    found = inputs_of("gradient", Moments(whole=general), Moments(whole=general), G, 3, 1e-2)
    L = torch.linalg.cholesky(held)
    V = torch.linalg.svd(torch.linalg.solve(L, G.mT).mT)[2][:3].mT  # of G L^-T
    same_span(found, torch.linalg.solve(L.mT, V))


@pytest.mark.parametrize("kind", ["gradient", "contrastive", "difference", "null"])
@pytest.mark.parametrize("count", [8, 20])
def test_a_sample_gives_what_the_whole_moments_of_its_tokens_give(kind, count):
    """Below the width, where the moments are singular, as above it."""
    task, general = tokens(count, 16, seed=2), tokens(count + 1, 16, seed=3)
    G = tokens(7, 16, seed=13) if kind == "gradient" else None
    sampled, whole = (
        inputs_of(kind, *both(task, general, sampled=each), G, 5, 1e-2) for each in (True, False)
    )
    if kind != "null":
        same_span(sampled, whole)
        torch.testing.assert_close((task @ sampled).square().sum(), (task @ whole).square().sum())
    elif count == 8:  # any inputs that no token has are as good as others
        assert (general @ sampled).abs().max() < 1e-10 * sampled.norm()
        assert (general @ whole).abs().max() < 1e-6 * whole.norm()


@pytest.mark.parametrize("sampled", [True, False])
def test_they_respond_alike_to_general_text_and_to_the_task_as_random_ones_do(sampled):
    task, general, ridge = tokens(40, 12, seed=9), tokens(50, 12, seed=10), 1e-3
    found = inputs_of("contrastive", *both(task, general, sampled=sampled), None, 4, ridge)
    held = moments(general) + ridge * moments(general).diagonal().mean() * torch.eye(12)
    gram = found.mT @ held @ found
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close((task @ found).square().sum(), task.square().sum() * 4 / 12)


def test_with_fewer_tokens_than_inputs_the_rest_is_what_no_token_has():
    task, general = tokens(3, 16, seed=4), tokens(2, 16, seed=5)
    found = inputs_of("contrastive", *both(task, general, sampled=True), None, 7, 1e-4)
    assert torch.linalg.matrix_rank(found) == 7
    assert (task @ found[:, 5:]).abs().max() < 1e-10


def test_energy_is_the_share_of_what_is_read():
    x = tokens(30, 6, seed=6)
    basis = torch.linalg.qr(tokens(6, 2, seed=7))[0]
    expected = float((x @ basis).square().sum() / x.square().sum())
    assert Moments(sample=x).energy(basis) == pytest.approx(expected)
    assert Moments(whole=moments(x)).energy(basis) == pytest.approx(expected)


# What it gathers


def test_moments_are_those_of_every_token_but_padding(part_fit):
    module = part_fit()
    rows = module.trainer.datamodule.text_conversations()[:6]
    found = moments_of(module, rows, module.sites, widest=40, tokens=10)
    read = {}
    for site in module.sites:
        module.model.get_base_model().get_submodule(site.name).register_forward_pre_hook(
            lambda _m, args, name=site.name: read.setdefault(name, []).append(args[0][0].double())
        )
    for row in sorted(rows, key=len):  # one by one, without padding
        ids = torch.as_tensor(row.input_ids)[None]
        module.base_forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert len({id(each) for each in found.values()}) < len(module.sites)  # q, k and v share theirs
    wide = 0
    for site in module.sites:
        x = torch.cat(read[site.name])
        if site.shape[1] > 40:
            sample, stride = found[site.name].sample, max(1, len(x) // 10)
            torch.testing.assert_close(sample.double(), x[::stride], rtol=1e-4, atol=1e-6)
            wide += 1
        else:
            torch.testing.assert_close(found[site.name].whole, moments(x), rtol=1e-4, atol=1e-6)
    assert wide


# Fits


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_stays_as_it_began(kind, part_fit):
    before = {}

    class Kept(NullSpaceStart):
        def begin(self, host):
            super().begin(host)
            before.update({site.name: site.A.detach().clone() for site in host.sites})
            assert all(p.grad is None for p in host.parameters())

    module = part_fit(start=Kept(kind=kind, limit=8))
    for site in module.sites:
        assert torch.equal(site.A, before[site.name])
        assert site.B.any()


def test_gradients_are_those_of_the_frozen_weights(part_fit, model_folder):
    """Against autograd, on the base model with its own weights trained."""
    module = part_fit(max_steps=1, optimizer=partial(torch.optim.SGD, lr=0.0))
    rows = module.trainer.datamodule.train_conversations()[:5]
    found = gradients_of(module, rows, module.sites)
    base = module.model.get_base_model()
    weights = {site.name: base.get_submodule(site.name).base_layer.weight for site in module.sites}
    for each in weights.values():
        each.requires_grad_()
    module.model.eval()
    loss, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.input_ids])
        batch = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.tensor([row.labels]),
        }
        one, count = module.answer_loss(batch)
        loss, tokens = loss + one, tokens + int(count)
    (loss / tokens).backward()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-3, atol=1e-6)


def test_a_small_memory_takes_more_passes_and_changes_nothing(part_fit, monkeypatch):
    passes = []

    def counted(*args, **options):
        passes.append(args[2])
        return moments_of(*args, **options)

    monkeypatch.setattr(null_space, "moments_of", counted)
    at_once = part_fit(start=NullSpaceStart())
    few = len(passes)
    bit_by_bit = part_fit(start=NullSpaceStart(memory=1e-9))
    assert same(every_factor(at_once), every_factor(bit_by_bit))
    assert few == 2  # the text and the rows
    assert len(passes) - few > few


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_the_update_does_not_respond_to_what_a_does_not_read(optimizer, part_fit):
    """The bound ||dW x|| <= ||s B|| ||A x||, of the adapter as it is saved, under any optimizer."""
    module = part_fit(start=NullSpaceStart(kind="null"), optimizer=partial(optimizer, lr=1e-2))
    for site in module.sites:
        update = (site.scaling * site.B @ site.A).detach()
        x = tokens(50, site.shape[1], seed=8).to(update)
        read = site.A.detach() @ x.mT
        most = (site.scaling * torch.linalg.matrix_norm(site.B.detach(), 2)) * read.norm(dim=0)
        assert ((update @ x.mT).norm(dim=0) <= most * (1 + 1e-5)).all()
        span = torch.linalg.qr(site.A.detach().mT)[0]
        outside = x - x @ span @ span.mT
        assert (update @ outside.mT).norm() <= 1e-5 * (update @ x.mT).norm()


def test_the_response_is_measured_by_hand_and_kept(part_fit, tmp_path):
    module = part_fit(start=NullSpaceStart(limit=30))
    rows = module.trainer.datamodule.train_conversations()[:3]
    text = module.trainer.datamodule.text_conversations()[:30:10]
    found = responses(module, rows, text)
    site = module.sites[-1]
    seen = {}
    layer = module.model.get_base_model().get_submodule(site.name)
    hook = layer.register_forward_pre_hook(lambda _m, args: seen.setdefault("x", []).append(args[0][0]))
    lengths = []
    for part in (rows, text):
        seen.clear()
        for row in part:
            ids = torch.as_tensor(row.input_ids)[None]
            module.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
        x = torch.cat(seen["x"])
        lengths.append((site.scaling * x @ site.A.mT @ site.B.mT).norm(dim=-1).double().detach())
    hook.remove()
    task, other = lengths
    size = task.square().mean().sqrt()
    assert found.sites[site.name].typical == pytest.approx(
        float(other.square().mean().sqrt() / size), rel=1e-4
    )
    assert found.sites[site.name].largest == pytest.approx(float(other.max() / size), rel=1e-4)
    kept = json.loads((tmp_path / "null_space.json").read_text())
    assert kept["typical"] == pytest.approx(found.typical, rel=1e-3)
    assert "held-out rows of text" in found.sentence()


def fit_with_text(kind, model_folder, write_rows, folder):
    """Fit on rows of one wording with text of another."""
    seed_everything(0, verbose=False)
    rows, text = (
        write_rows(
            [{"prompt": f"{word} {each}", "completion": f"{word} the {each}"} for each in words],
            name=f"{word}.jsonl",
        )
        for word, words in (("open", ["file", "code"] * 5), ("take", ["pills", "water"] * 5))
    )
    start = NullSpaceStart(kind=kind)
    module = LoRALitModule(str(model_folder()), lora=LoraOptions(r=2), start=start, optimizer=adam)
    train(module, rows=rows, folder=folder, data={"text": str(text)})
    return json.loads((folder / "null_space.json").read_text())["typical"] if kind != "random" else module


def test_contrastive_responds_less_to_general_text_than_other_inputs(model_folder, write_rows, tmp_path):
    found = {
        kind: fit_with_text(kind, model_folder, write_rows, tmp_path)
        for kind in ("contrastive", "difference")
    }
    module = fit_with_text("random", model_folder, write_rows, tmp_path)
    data = module.trainer.datamodule
    text = data.text_conversations()
    at_random = responses(module, data.train_conversations()[:2], text[::10]).typical
    assert found["contrastive"] < 0.3 * at_random
    assert found["contrastive"] < found["difference"]


def test_without_text_it_is_refused_before_the_first_step(fit):
    with pytest.raises(
        GrasplError, match=r"data\.text: is missing, and NullSpaceStart reads general text; give"
    ):
        fit(start=NullSpaceStart(), optimizer=adam)


@pytest.mark.parametrize("options", [{"ridge": 0.0}, {"memory": -1.0}])
def test_options_without_sense_are_refused(options):
    with pytest.raises(GrasplError, match="must be above 0"):
        NullSpaceStart(**options)
