"""The trial before training: two short fits, and what they leave behind."""

import json
from functools import partial

import pytest
import torch
from fits import adam, every_factor, same

import graspl.starts.response as response
import graspl.starts.trial as trial
from graspl.constraints import ResidualConstraint
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule, LoRALitModule
from graspl.starts import NullSpaceStart
from graspl.starts.base import Start
from graspl.starts.moments import batches_of
from graspl.starts.trial import Course, Trial, tried

USUAL = partial(torch.optim.AdamW, lr=trial.NAIVE_RATE, weight_decay=0.0, fused=True)


class Trying(Start):
    """Tries itself with other A, and keeps what came of it."""

    def __init__(self, *, scale=1.0, steps=3, rows=slice(None)):
        self.scale, self.steps, self.rows = scale, steps, rows

    def begin(self, host):
        text = host.trainer.datamodule.text_conversations()[self.rows]
        plain = {site.name: self.scale * site.A.detach() for site in host.whole_sites()}
        before, state = every_factor(host), torch.get_rng_state()
        self.found = tried(host, plain, {"text": text}, steps=self.steps, train_A=True)
        assert same(before, every_factor(host))
        assert torch.equal(state, torch.get_rng_state())
        assert all(p.grad is None for p in host.parameters() if p.requires_grad)


def test_between_measurements_a_course_goes_along_a_line():
    course = Course([0.0, 1.0, 0.5, 3.0], {"text": [0.0, 0.4, 0.1, 0.8]})
    assert course.moved_at(0.5, "text") == pytest.approx(0.2)
    assert course.moved_at(1.0, "text") == pytest.approx(0.4)
    assert course.moved_at(1.75, "text") == pytest.approx(0.45)


def test_a_trial_of_the_naive_fit_itself_keeps_all(part_fit):
    module = part_fit(start=Trying(steps=4), optimizer=USUAL)
    assert module.start.found == Trial(kept={"text": 1.0}, reach=1.0)


def test_the_naive_fit_begins_with_the_A_it_is_given(part_fit):
    module = part_fit(start=Trying(scale=3.0, steps=4), optimizer=USUAL)
    assert module.start.found.reach < 0.9  # B that reads three times as much moves more


def test_a_frozen_A_is_not_trained_in_the_trial_either(part_fit, monkeypatch):
    trained = []
    real = trial._ShortFit.course

    def course(self, factors, *args, **options):
        trained.append(len(factors))
        return real(self, factors, *args, **options)

    monkeypatch.setattr(trial._ShortFit, "course", course)
    module = part_fit(start=NullSpaceStart(limit=30, trial=2), optimizer=adam)
    assert trained == [len(module.sites), 2 * len(module.sites)]


def test_the_divergence_is_that_of_answer_tokens_from_the_base_model(part_fit, monkeypatch):
    seen = []
    real = trial._distance

    def measured(host, rows):
        found = real(host, rows)
        by_hand = []
        for batch in batches_of(host, rows, 1):
            with torch.no_grad():
                ours, base = host(batch).log_softmax(-1), host.base_forward(batch).log_softmax(-1)
            answers = batch["labels"][0, 1:] != -100
            by_hand.append((ours.exp() * (ours - base)).sum(-1)[0, :-1][answers])
        seen.append((found, float(torch.cat(by_hand).mean()) ** 0.5))
        return found

    monkeypatch.setattr(trial, "_distance", measured)
    part_fit(start=Trying(scale=3.0, rows=slice(10)), optimizer=USUAL)
    assert len(seen) >= 3
    assert all(ours > 0 and ours == pytest.approx(theirs, rel=1e-3) for ours, theirs in seen)


def test_rows_that_tell_how_far_the_task_moves_are_not_trained_on(part_fit, monkeypatch):
    batches, measured = [], []
    real = trial.take_step, trial._distance

    def stepped(host, trained, optimizer, drawn):
        batch = next(drawn)
        batches.append(
            {
                tuple(row[mask.bool()].tolist())
                for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            }
        )
        return real[0](host, trained, optimizer, iter([batch]))

    def distance(host, rows):
        measured.append({tuple(row.input_ids) for row in rows})
        return real[1](host, rows)

    monkeypatch.setattr(trial, "take_step", stepped)
    monkeypatch.setattr(trial, "_distance", distance)
    part_fit(start=Trying(steps=4), optimizer=USUAL)
    assert all(len(each) == 4 for each in batches)
    assert not measured[0] & set.union(*batches)


def test_of_too_few_rows_nothing_is_foreseen(part_fit, monkeypatch, caplog):
    monkeypatch.setattr(trial, "HELD_OUT", 0)
    assert part_fit(start=Trying(), optimizer=USUAL).start.found is None
    assert "too few" in caplog.text


def test_of_a_fit_that_fails_nothing_is_foreseen(part_fit, caplog):
    with pytest.raises(GrasplError):  # So does the fit itself, later
        part_fit(start=Trying(), optimizer=lambda p: torch.optim.SGD(p, lr=float("nan")))
    assert "failed" in caplog.text


def test_a_course_counts_until_its_fit_fails():
    nan = float("nan")
    assert Course([0.0, 1.0, 0.5, nan, 2.0], {"text": []}).furthest == 1.0
    assert Course([0.0, nan], {"text": []}).furthest == 0.0


@pytest.mark.parametrize("option", ["own_text", "trial"])
def test_a_random_start_reads_no_text_and_says_so(option):
    with pytest.raises(GrasplError, match=f"start.{option}: kind random reads no text"):
        NullSpaceStart(kind="random", **{option: 10})


def test_the_naive_fit_ends_once_it_has_moved_the_task_as_far(part_fit, monkeypatch):
    steps = []
    real = trial._ShortFit.course

    def course(self, trained, optimizer, most, **options):
        found = real(self, trained, optimizer, most, **options)
        steps.append((len(found.task) - 1, most, options.get("enough")))
        return found

    monkeypatch.setattr(trial._ShortFit, "course", course)
    part_fit(start=Trying(steps=4), optimizer=USUAL)
    (ours, four, _), (naive, twelve, enough) = steps
    assert (ours, four, naive, twelve) == (1, 4, 1, 12)  # The same fit moves as far in as many steps
    assert enough > 0


def test_fits_that_move_nothing_foresee_nothing(part_fit):
    module = part_fit(start=Trying(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    assert module.start.found is None


@pytest.mark.parametrize(
    ("kept", "outlook"), [(0.1, "likely to hold"), (0.49, "likely to hold"), (0.5, "not likely to hold")]
)
@pytest.mark.parametrize("other", [0.05, 0.9])
def test_the_users_text_decides_where_there_is_some(kept, outlook, other):
    found = Trial({"own_text": other, "text": kept}, 1.2)
    assert found.outlook == outlook
    assert f"{other:.0%} on own text, {kept:.0%} on text" in found.sentence()
    assert Trial({"own_text": kept}, 1.2).outlook == outlook


def test_a_fit_is_the_same_with_a_trial_and_without(part_fit, tmp_path):
    fits = []
    for steps in (0, 2):
        fits.append(part_fit(start=NullSpaceStart(limit=30, trial=steps), optimizer=adam))
        kept = json.loads((tmp_path / "null_space.json").read_text())
        assert ("trial" in kept) is (steps > 0)
    assert same(every_factor(fits[0]), every_factor(fits[1]))
    ours = fits[1].start
    assert kept["trial"] == {"kept": ours.tried.kept, "reach": ours.tried.reach, "outlook": ours.outlook}


def test_no_trial_is_made_where_the_response_says_enough(part_fit, monkeypatch):
    monkeypatch.setattr(response, "HOLDS", 1e9)
    module = part_fit(start=NullSpaceStart(limit=30, trial=2), optimizer=adam)
    assert module.start.tried is None
    assert module.start.outlook == "likely to hold"


@pytest.mark.parametrize("holds", [True, False])
def test_the_default_does_what_its_trial_says(holds, part_fit, monkeypatch):
    """Whatever the response says."""
    monkeypatch.setattr(response, "HOLDS", 0.0)
    monkeypatch.setattr(response, "FAILS", 0.0 if holds else 1e9)
    monkeypatch.setattr(trial, "HOLDS", 1e9 if holds else 0.0)
    found = part_fit(
        kind=GRASPLitModule,
        start=NullSpaceStart(limit=30, trial=2),
        optimizer=adam,
        constraints=[ResidualConstraint(k=2)],
        constrain="unlikely",
    )
    assert (found.found_directions is None) is holds
    if holds:
        alone = part_fit(kind=LoRALitModule, start=NullSpaceStart(limit=30), optimizer=adam)
        assert same(every_factor(found), every_factor(alone))


def test_a_trial_that_moves_nothing_leaves_the_response_to_decide(part_fit, caplog):
    start = NullSpaceStart(limit=30, trial=2)
    module = part_fit(start=start, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    assert module.start.tried is None
    assert "moved nothing" in caplog.text
