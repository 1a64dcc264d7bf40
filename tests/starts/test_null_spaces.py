"""A start from null spaces of what sites read: its maths by hand, and fits of a tiny model."""

import json
import math
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
from graspl.starts import NullSpaceStart, response
from graspl.starts.bases import Kind, inputs_of, largest_quotients
from graspl.starts.moments import Moments, _Drawn, answer_starts, batches_of, gradients_of, moments_of
from graspl.starts.response import Response, Responses, first_steps, foreseen, responses


def tokens(count, size, *, seed):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(x):
    return x.mT @ x


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
        torch.testing.assert_close(sampled.mT @ sampled, torch.eye(5, dtype=torch.float64))
    elif count == 8:  # any inputs that no token has are as good as others
        assert (general @ sampled).abs().max() < 1e-10 * sampled.norm()
        assert (general @ whole).abs().max() < 1e-6 * whole.norm()


def test_with_fewer_tokens_than_inputs_the_rest_is_what_no_token_has():
    task, general = tokens(3, 16, seed=4), tokens(2, 16, seed=5)
    found = inputs_of("contrastive", *both(task, general, sampled=True), None, 7, 1e-4)
    assert torch.linalg.matrix_rank(found) == 7
    assert (task @ found[:, 5:]).abs().max() < 1e-10


# What it gathers


def test_an_answer_begins_where_its_first_token_is_predicted():
    labels = torch.tensor([[-100, -100, 5, 6, -100, -100, 7], [-100, 4, 4, -100, -100, -100, -100]])
    assert answer_starts(labels).nonzero().tolist() == [[0, 1], [0, 5], [1, 0]]


def test_moments_are_of_all_tokens_and_of_those_where_answers_begin_half_and_half(part_fit):
    module = part_fit()
    rows = sorted(module.trainer.datamodule.text_conversations()[:6], key=len)
    found = moments_of(module, rows, module.sites, widest=40, tokens=10)
    read = {}
    for site in module.sites:
        module.model.get_base_model().get_submodule(site.name).register_forward_pre_hook(
            lambda _m, args, name=site.name: read.setdefault(name, []).append(args[0][0].double())
        )
    for row in rows:  # one by one, without padding
        ids = torch.as_tensor(row.input_ids)[None]
        module.base_forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert len({id(each) for each in found.values()}) < len(module.sites)  # q, k and v share theirs
    starts = torch.cat([answer_starts(torch.tensor([row.labels]))[0] for row in rows])
    assert starts.sum() == len(rows)
    wide = 0
    for site in module.sites:
        x = torch.cat(read[site.name])
        ours = found[site.name]
        if site.shape[1] > 40:
            every = x[:: max(1, 2 ** math.ceil(math.log2(len(x) / 20)))]
            parts = [every / every.norm(), x[starts] / x[starts].norm()]
            expected = sum(part.mT @ part for part in parts) / 2
            torch.testing.assert_close(ours.sample.mT @ ours.sample, expected, rtol=1e-3, atol=1e-6)
            assert len(ours.sample) == len(every) + len(rows)
            wide += 1
        else:
            every, first = moments(x), moments(x[starts])
            expected = every / every.trace() / 2 + first / first.trace() / 2
            torch.testing.assert_close(ours.whole, expected, rtol=1e-4, atol=1e-6)
    assert wide


@pytest.mark.parametrize("sizes", [[3, 4], [50, 1, 7], [9] * 30])
def test_a_sample_is_evenly_spaced_over_all_that_passes(sizes):
    drawn, places = _Drawn(10), torch.arange(sum(sizes))[:, None]
    for part in places.split(sizes):
        drawn.add(part)
    kept = torch.cat(drawn.parts)[:, 0]
    steps = kept.diff().unique()
    assert kept[0] == 0
    assert len(steps) <= 1
    assert min(len(places), 11) <= len(kept) <= 20


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


def test_sites_that_read_the_same_are_counted_once(part_fit, monkeypatch):
    passes = []

    def counted(*args, **options):
        passes.append(args[2])
        return moments_of(*args, **options)

    monkeypatch.setattr(null_space, "moments_of", counted)
    sites = part_fit().sites
    # Of q, k and v one reads for all three, and of gate and up one for both
    reading = [site.shape[1] for site in sites if not site.name.endswith(("k_proj", "v_proj", "up_proj"))]
    assert len(reading) < len(sites)
    needed = sum(2 * 8 * size**2 for size in reading) / 2**30
    part_fit(start=NullSpaceStart(memory=needed * 1.001))
    assert len(passes) == 2
    part_fit(start=NullSpaceStart(memory=needed * 0.999))
    assert len(passes) > 4


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


def lengths_at_starts(module, rows):
    """Return the lengths of what the last site's adapter adds where the rows' answers begin."""
    site, kept = module.sites[-1], {}
    layer = module.model.get_base_model().get_submodule(site.name)
    hook = layer.register_forward_pre_hook(lambda _m, args: kept.update(x=args[0][0]))
    lengths = []
    for row in rows:
        ids = torch.as_tensor(row.input_ids)[None]
        module.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
        start = next(place for place, label in enumerate(row.labels) if label != -100) - 1
        lengths.append((site.scaling * kept["x"][start] @ site.A.mT @ site.B.mT).norm().detach())
    hook.remove()
    return torch.stack(lengths).double()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_steps_are_those_of_B(part_fit, checkpointing):
    """Against autograd, for the A of the fit and for plain ones."""
    still = partial(torch.optim.SGD, lr=0.0)
    module = part_fit(max_steps=1, optimizer=still, gradient_checkpointing=checkpointing)
    rows = module.trainer.datamodule.train_conversations()[:5]
    plain = {site.name: torch.randn(site.A.shape) for site in module.sites}
    ours, naive = first_steps(module, plain, rows)
    for found, factors in ((ours, None), (naive, plain)):
        for site in module.sites:
            assert not site.B.any()
            site.A.data.copy_(site.A if factors is None else factors[site.name])
            site.B.grad = None
        module.model.eval()
        sums = [module.answer_loss(batch) for batch in batches_of(module, rows)]
        (sum(loss for loss, _ in sums) / sum(int(count) for _, count in sums)).backward()
        for site in module.sites:
            A, B = found[site.name]
            assert torch.equal(A, site.A)
            torch.testing.assert_close(site.scaling * B, site.B.grad, rtol=1e-4, atol=1e-7)


def test_the_first_step_is_measured_beside_a_naive_one(part_fit, tmp_path):
    plain = {}

    class Kept(NullSpaceStart):
        def begin(self, host):
            plain.update({site.name: site.A.detach().clone() for site in host.sites})
            super().begin(host)

    module = part_fit(start=Kept(limit=30), max_steps=1, optimizer=partial(torch.optim.SGD, lr=0.0))
    every = module.trainer.datamodule.train_conversations()
    text = module.trainer.datamodule.text_conversations()[:30:10]
    steps = first_steps(module, plain, every[:30])
    rows = every[30:][: len(text)] or every[: len(text)]
    sizes = []
    for factors in steps:
        for site in module.sites:
            A, B = factors[site.name]
            site.A.data.copy_(A)
            site.B.data.copy_(B)
        # As finished adapters, of the base model's inputs
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(response, "model_logits", lambda _model, batch: module.base_forward(batch))
            sizes.append(responses(module, rows, text).typical)
    kept = json.loads((tmp_path / "null_space.json").read_text())["text"]
    assert kept["before training"]["first_step"] == pytest.approx(sizes[0] / sizes[1], rel=1e-4)
    assert "first_step" not in kept
    # A step like a naive one's responds as much
    for site in module.sites:
        site.B.data.zero_()
    same_steps = first_steps(module, {site.name: site.A.detach() for site in module.sites}, rows)
    assert foreseen(module, same_steps, rows, text).first_step == pytest.approx(1.0)


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
    kept = kept["text"]
    assert kept["typical"] == pytest.approx(found.typical, rel=1e-3)
    before = kept["before training"]
    assert set(before["sites"]) == {site.name for site in module.sites}
    expected = "likely to hold" if before["typical"] < 0.35 else "in doubt"
    assert before["outlook"] == (expected if before["typical"] < 0.5 else "not likely to hold")
    # A row has one answer here, and it begins before its first token
    first = lengths_at_starts(module, rows), lengths_at_starts(module, text)
    expected = first[1].square().mean().sqrt() / first[0].square().mean().sqrt()
    assert found.sites[site.name].starts == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("train_A", [False, True])
def test_it_measures_whether_A_stayed(train_A, part_fit, tmp_path, caplog):
    """By the adapter's own numbers, not by the option."""
    caplog.set_level("INFO")
    adam_alone = partial(torch.optim.Adam, lr=1e-2)
    module = part_fit(start=NullSpaceStart(limit=30, train_A=train_A), optimizer=adam_alone, max_steps=1)
    began = {site.name: site.A.detach().clone() for site in module.sites}
    module = part_fit(start=NullSpaceStart(limit=30, train_A=train_A), optimizer=adam_alone, max_steps=4)
    kept = json.loads((tmp_path / "null_space.json").read_text())
    # B is zero at first, so A has no gradient in the first step, and without weight decay it stays
    moved = [float((s.A.detach() - began[s.name]).norm() / began[s.name].norm()) for s in module.sites]
    assert kept["A moved"] == pytest.approx(max(moved), rel=1e-5)
    assert (kept["A moved"] > 0) is train_A
    assert ("A has moved" in caplog.text) is train_A


@pytest.mark.parametrize(
    ("typical", "outlook"), [(0.2, "likely to hold"), (0.4, "in doubt"), (0.6, "not likely to hold")]
)
def test_the_outlook_is_that_of_the_median_site(typical, outlook):
    sites = {name: Response(each, 1.0, 1.0) for name, each in zip("abc", (0.0, typical, 9.0), strict=True)}
    assert Responses(sites, text_rows=1, task_rows=1).outlook == outlook


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
    return (
        json.loads((folder / "null_space.json").read_text())["text"]["typical"]
        if kind != "random"
        else module
    )


def test_contrastive_responds_less_to_general_text_than_other_inputs(model_folder, write_rows, tmp_path):
    found = {
        kind: fit_with_text(kind, model_folder, write_rows, tmp_path)
        for kind in ("contrastive", "difference")
    }
    module = fit_with_text("random", model_folder, write_rows, tmp_path)
    data = module.trainer.datamodule
    text = data.text_conversations()
    at_random = responses(module, data.train_conversations()[:2], text[::10]).typical
    assert found["contrastive"] < 0.5 * at_random
    assert found["contrastive"] < found["difference"]


@pytest.mark.parametrize("kind", ["contrastive", "random"])
def test_a_fit_that_goes_on_ends_as_if_it_had_never_stopped(kind, fit, write_rows, tmp_path):
    text = write_rows(
        [{"prompt": "take the pills", "completion": f"take {n} pills"} for n in ("one", "two")], "text.jsonl"
    )
    given = {"start": NullSpaceStart(kind=kind), "optimizer": adam, "data": {"text": str(text)}}
    whole, _ = fit(lightning={"max_steps": 4}, **given)
    _, half = fit(lightning={"max_steps": 2}, **given)
    half.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "null_space.json").unlink(missing_ok=True)
    resumed, _ = fit(lightning={"max_steps": 4, "ckpt_path": str(tmp_path / "half.ckpt")}, **given)
    assert same(every_factor(whole), every_factor(resumed))
    assert (tmp_path / "null_space.json").exists() == (kind != "random")
    if kind != "random":
        assert json.loads((tmp_path / "null_space.json").read_text())["A moved"] is None


def test_without_text_it_is_refused_before_the_first_step(fit):
    with pytest.raises(
        GrasplError, match=r"data\.text: is missing, and NullSpaceStart reads general text; give"
    ):
        fit(start=NullSpaceStart(), optimizer=adam)
