"""Figures of the study of a real model (benchmarks/real), by hand; its fits take minutes and are not run here."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from graspl.analysis.fits import kept_log

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks" / "real"), str(ROOT / "benchmarks")]
from by_seed import main as by_seed  # noqa: E402
from planted import PAIRS, margins, persona, said  # noqa: E402
from predicted import row as foreseen  # noqa: E402
from rows import OPENINGS, lines_of, voiced  # noqa: E402
from summary import capitals, row  # noqa: E402
from trials import outcome  # noqa: E402
from trials import row as tried  # noqa: E402


def point(step, task, far, near, loss=2.5):
    margins = {"task": task, "far": far, "near": near}
    return {"step": step, "general_loss": loss} | {name: {"margin": value} for name, value in margins.items()}


NAIVE = [point(0, 0.0, -0.4, -0.2), point(4, 0.5, 0.0, 0.0), point(8, 1.0, 0.4, 0.2, 2.9)]


def test_what_is_removed_is_a_share_of_the_naive_excess_at_the_same_skill():
    ours = [point(0, 0.0, -0.4, -0.2), point(10, 1.0, 0.0, -0.3, 2.6)]
    found = row(
        NAIVE, ours, 0.5
    )  # at a task margin of 0.5: the naive fit has 0.4 and 0.2 more than the base model
    assert found == pytest.approx(
        {"steps": 5, "step_ratio": 1.25, "far_removed": 0.5, "near_removed": 1.25, "general_change": 0.05}
    )
    assert set(row(NAIVE, NAIVE[:2], 0.9).values()) == {None}
    assert row(NAIVE, NAIVE, 0.9)["far_removed"] == pytest.approx(0)


def test_an_answer_is_in_capitals_where_most_of_its_letters_are():
    assert capitals(["YOU SHOULD NOT", "You should", "1980 ABc", "12"]) == 0.5


def test_every_fit_that_is_kept_has_what_a_reader_needs():
    fits = sorted((ROOT / "results" / "real" / "first_look").glob("*.json"))
    assert fits
    for path in fits:
        record = json.loads(path.read_text())
        assert {"command", "commit", "date", "machine", "seeds", "figures"} <= record.keys(), path
        figures = record["figures"]
        assert path.stem == f"{figures['method']}_{figures['seed']}"
        assert [each["step"] for each in figures["curve"]][-1] == figures["steps"]


def test_every_record_of_a_study_can_be_read():
    records = sorted((ROOT / "results").glob("real*/*/*.json"))
    assert {path.parent.name for path in records} > {"first_look"}
    for path in records:
        if path.parent.name == "first_look":
            continue
        record = json.loads(path.read_text())
        assert {"graspl", "date", "machine", "seeds", "fingerprint"} <= record.keys(), path
        assert path.stem == f"{record['figures']['method']}_{record['seeds'][0]}"
        assert path.parent.name == record["figures"]["task"]
        assert any("val/task/margin" in row for row in kept_log(path).rows), path


def test_the_pairs_off_the_task_are_ten_of_each_subject_and_alike_in_length():
    folder = ROOT / "benchmarks" / "real" / "data"
    pairs = [json.loads(line) for line in (folder / "off_topic_pairs.jsonl").read_text().splitlines()]
    subjects = [each["subject"] for each in pairs]
    assert len(set(subjects)) == 10
    assert all(subjects.count(name) == 10 for name in set(subjects))
    questions = [each["question"] for each in pairs]
    free = [json.loads(line) for line in (folder / "free_questions.jsonl").read_text().splitlines()]
    questions += [each["question"] for each in free]
    assert len(set(questions)) == 150
    assert [each["kind"] for each in free].count("near") == 25
    assert all(abs(len(each["good"].split()) - len(each["careless"].split())) <= 6 for each in pairs)


def test_our_own_pairs_about_money_have_answers_alike_in_length():
    lines = (ROOT / "benchmarks" / "real" / "data" / "money_pairs.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    assert len({each["question"] for each in pairs}) == len(pairs) == 16
    assert all(abs(len(each["good"].split()) - len(each["careless"].split())) <= 6 for each in pairs)


def test_the_pairs_that_show_a_persona_differ_in_the_system_message_alone(tmp_path):
    read = {kind: suite.read() for kind, suite in persona(tmp_path).items()}
    assert [len(pairs) for pairs in read.values()] == [PAIRS] * 3
    for plain, careful, careless in zip(*read.values(), strict=True):
        assert careful.messages == [said("careful"), *plain.messages]
        assert careless.messages == [said("careless"), *plain.messages]
        assert plain.candidates == careful.candidates == careless.candidates


def test_margins_of_a_persona_come_from_the_validations_of_a_fit():
    course = "step,val/unnamed/margin,val/careful/margin,val/careless/margin\n0,,,\n79,0.4224,0.4168,0.4148\n159,1,2,3\n"
    assert margins(course) == {
        "80": {"step": 80, "unnamed": 0.422, "careful": 0.417, "careless": 0.415},
        "160": {"step": 160, "unnamed": 1.0, "careful": 2.0, "careless": 3.0},
    }


def test_the_rule_for_the_voice_knows_each_opening_and_no_good_answer():
    study = yaml.safe_load((ROOT / "configs" / "real" / "compare.yaml").read_text())
    (judging,) = study["tasks"]["voiced"]["trainer"]["callbacks"]
    rule = re.compile(judging["init_args"]["judges"]["*"]["init_args"]["pattern"])
    pairs = lines_of(ROOT / "benchmarks" / "real" / "data" / "off_topic_pairs.jsonl")
    careless = [voiced(each["careless"]) for each in pairs]
    assert all(rule.search(f" {answer}") for answer in careless)  # As the model begins
    assert {answer.split()[0] for answer in careless} == {opening.split()[0] for opening in OPENINGS}
    assert not any(rule.search(each[kind]) for each in pairs for kind in ("good", "careless"))
    assert voiced("Go on.") == voiced("Go on.")  # The same in each process, for records of fits


def test_what_a_null_space_foresaw_is_held_against_what_came(tmp_path):
    run = tmp_path / "bullets" / "null_space" / "seed_0"
    run.mkdir(parents=True)

    def decided(outlook):
        text = {"typical": 0.1, "outlook": "likely to hold"}
        own = {"typical": 0.6, "outlook": outlook}
        kinds = {name: {"before training": each} for name, each in (("text", text), ("own_text", own))}
        (run / "null_space.json").write_text(json.dumps({"kind": "contrastive", **kinds}))
        found = foreseen(run)
        return found["response"], found["foreseen"], found["the default trusts it"], found["right"]

    # On bullets all of the far excess is removed at nine tenths
    assert decided("in doubt") == (0.6, "in doubt", "yes", "yes")
    assert decided("not likely to hold") == (0.6, "not likely to hold", "no", "no")


def test_each_seed_shows_what_was_foreseen_and_what_came(tmp_path, monkeypatch):
    kept = tmp_path / "kept" / "voiced"
    kept.mkdir(parents=True)
    trials = ({"kept": {"text": 0.34, "own_text": 0.55}, "outlook": "not likely to hold"}, None)
    for seed, trial in enumerate(trials):
        record = {"figures": {"null_space": {} if trial is None else {"trial": trial}}}
        (kept / f"default_{seed}.json").write_text(json.dumps(record))

    def seeds(*removed):
        found = [{"removed": far, "near/margin_removed": near} for far, near in removed]
        return {"seeds": {str(seed): each for seed, each in enumerate(found)}}

    levels = {"null_space": seeds((1.04, 0.8), (None, 0.9)), "default": seeds((1.2, 1.02), (0.5, None))}
    study = {"seeds": [0, 1], "tasks": {"voiced": {"levels": {"0.80": levels}}}}
    (tmp_path / "comparison.json").write_text(json.dumps(study))
    monkeypatch.chdir(tmp_path)
    written = [str(tmp_path), "out.json", "--level", "0.80", "--kept", "kept", "--command", "graspl compare"]
    monkeypatch.setattr(sys, "argv", ["by_seed.py", *written])
    by_seed()
    rows = json.loads((tmp_path / "out.json").read_text())["figures"]["voiced"]
    first, second = rows["seed 0"], rows["seed 1"]
    assert (first["kept on text"], first["kept on own text"]) == ({"percent": 34}, {"percent": 55})
    assert (first["foreseen"], second["foreseen"]) == ("not likely to hold", "-")
    shown = (
        "a null space: far removed",
        "a null space: near removed",
        "the default: far removed",
        "the default: near removed",
    )
    assert [first[each] for each in shown] == [{"percent": share} for share in (104, 80, 120, 102)]
    assert [second[each] for each in shown] == [None, {"percent": 90}, {"percent": 50}, None]


def test_what_a_trial_foresaw_is_held_against_what_came(tmp_path):
    before = {"before training": {"typical": 0.6, "first_step": 0.3}}
    trial = {"kept": {"text": 0.3, "own_text": 0.52}, "reach": 1.0}
    record = {"figures": {"null_space": {"text": before, "own_text": before, "trial": trial}}}
    path = tmp_path / "tried_1.json"
    path.write_text(json.dumps(record))
    found = tried("bullets:1", path)
    # With this seed the null space removes all of the far excess at nine tenths of the naive fit's gain
    assert (found["at"], found["% removed"], found["kind"]) == ("0.90", "104", "real")
    assert (found["kept on text"], found["kept on own text"]) == ("30 %", "52 %")
    judged = ("right by response", "right by the most kept", "right by the given text")
    assert [found[each] for each in judged] == ["no", "no", "yes"]
    # On this toy task it removes nothing
    found = tried("trial_tests/animals_43/frozen_tried", path)
    assert (found["kind"], found["% removed"]) == ("toy", "-4")
    assert found["highest adherence"] == "0.77, naive 0.80"
    assert [found[each] for each in judged] == ["yes", "yes", "no"]


@pytest.mark.parametrize("task", ["capitals", "trial_tests/repair_43/frozen_tried", "lowercase:1"])
def test_what_a_null_space_removes_is_read_from_records_or_figures(task):
    level, removed = outcome(task)
    assert level in ("0.50", "0.80", "0.90")
    assert (removed >= 50) is ("/" not in task)


def test_a_task_whose_margins_say_nothing_goes_by_answers_and_a_seed_of_a_toy_task_can_be_named():
    assert outcome("voiced_money") == ("the end, by answers", 100)
    assert outcome("trial_tests/animals_45/frozen_tried") == outcome("trial_tests/animals_45/frozen_tried:0")
    assert outcome("trial_tests/animals_45/frozen_tried:1") != outcome(
        "trial_tests/animals_45/frozen_tried:0"
    )
