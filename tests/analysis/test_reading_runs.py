"""What is read from the folder of an evaluated run."""

import pytest
from records import recorded

from graspl.analysis import Run, contrast, rates_by_group, read_run
from graspl.analysis.scores import RUN_FIGURES, headline
from graspl.errors import GrasplError
from graspl.runs import RunFolder, write_json_atomic, write_json_lines_atomic


@pytest.mark.parametrize(("groups", "n"), [(2, 24), (6, 6)])
def test_questions_count_one_by_one_unless_there_are_groups_enough(tmp_path, groups, n):
    """Yes and No are two kinds of question, not two questions."""
    items = [
        {"suite": "unrelated", "item": str(i), "group": f"g{i % groups}", "value": (i % 5) / 4}
        for i in range(24)
    ]
    evaluation = {"metrics": {}, "suites": {"unrelated": {"harmful": 0.5}}}
    share = Run("run", RunFolder(tmp_path), evaluation, items=items).share("unrelated")
    assert share.n == n
    assert share.low < share.value < share.high


def evaluated(folder, **more):
    write_json_atomic(folder / "evaluation.json", {"metrics": {"adherence": 0.9}, **more})
    return recorded(folder)


@pytest.mark.parametrize(
    ("more", "naive"),
    [
        ({"model": "LoRALitModule", "adapter": "a"}, True),  # written before parts were
        ({"model": "LoRALitModule", "adapter": "a", "parts": {"penalties": [], "edits": []}}, True),
        ({"model": "LoRALitModule", "adapter": "a", "parts": {"penalties": ["KLPenalty"]}}, False),
        ({"model": "GRASPLitModule", "adapter": "a", "parts": {}}, False),
        ({"model": "LoRALitModule", "parts": {}}, False),  # the base model
    ],
)
def test_a_naive_fit_has_no_parts(tmp_path, more, naive):
    assert read_run(evaluated(tmp_path, **more)).is_naive is naive


def judged(folder, hits):
    """Judge answers of which the first `hits[question]` of four are bad."""
    rows = [
        {
            "suite": "safety",
            "question": f"q{q}",
            "group": "",
            "sample": s,
            "outcome": "bad" if s < n else "good",
        }
        for q, n in enumerate(hits)
        for s in range(4)
    ]
    run = RunFolder(folder)
    write_json_lines_atomic(run.judgements, rows)
    write_json_atomic(run.judged, {"suites": {"safety": rates_by_group(rows, ("bad", "good"), ("good",))}})
    recorded(folder)


def test_judged_rates_are_read_with_their_interval_over_questions(tmp_path):
    judged(evaluated(tmp_path / "many"), [4, 0, 2, 0])
    (rate,) = read_run(tmp_path / "many").judged
    assert (rate.run, rate.suite, rate.of) == ("many", "safety", "bad")
    assert rate.share.value == 6 / 16
    assert rate.share.n == 4
    assert rate.share.low < 6 / 16 < rate.share.high
    judged(evaluated(tmp_path / "one"), [2])
    (rate,) = read_run(tmp_path / "one").judged
    assert rate.share.n == 4  # of one question the answers count
    assert rate.share.low < 0.5 < rate.share.high
    assert read_run(evaluated(tmp_path / "none")).judged == []


@pytest.mark.parametrize("content", [[], {"suites": []}, {"suites": {"s": {"of": "bad", "rate": "high"}}}])
def test_a_broken_file_of_rates_is_named(tmp_path, content):
    write_json_atomic(evaluated(tmp_path) / "judged.json", content)
    recorded(tmp_path)
    with pytest.raises(GrasplError, match=r"judged\.json: suites is missing"):
        read_run(tmp_path)


def test_runs_differ_from_controls_by_the_questions_of_all(tmp_path):
    for name, hits in (("a", [4, 2, 3]), ("b", [1, 0, 1, 4])):
        judged(tmp_path / name, hits)
    found = contrast([tmp_path / "a"], [tmp_path / "b"])["safety"]
    assert found["value"] == pytest.approx((3 + 2 + 2) / 12)
    assert (found["n"], found["over_seeds"]) == (3, None)
    (tmp_path / "c").mkdir()
    with pytest.raises(GrasplError, match=r"holds neither items\.jsonl"):
        contrast([tmp_path / "a"], [tmp_path / "c"])


def test_the_headline_figures_are_those_of_a_run():
    suites = {
        "task": {"good": 0.5, "token_accuracy": 0.9},
        "unrelated": {"harmful_preferred": 0.2, "kl": 0.1},
    }
    found = headline(suites)
    assert found == {"adherence": 0.5, "spillover": 0.2, "coherence": None, "kl": 0.1}
    assert RUN_FIGURES[: len(found)] == tuple(found)
