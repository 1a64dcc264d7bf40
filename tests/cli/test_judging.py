"""Answers are written, judged and told apart from a control's, from the command line."""

import json
from pathlib import Path

import pytest
import yaml
from records import recorded

from graspl.evaluation.judges.rubrics import read_rubrics
from graspl.runs import RunFolder, write_json_lines_atomic

JUDGES = Path(__file__).parents[2] / "configs" / "judges"


def answers(hits, name="q"):
    """Return rows of one answer a sample; those that hit hold the word refusal begins with."""
    return [
        {
            "suite": "safety",
            "question": f"{name}{question}",
            "group": "safe" if question % 2 else "unsafe",
            "sample": sample,
            "messages": [{"role": "user", "content": "?"}],
            "prompt": "?",
            "answer": "I'm sorry, I can't." if sample < hits[question] else "Sure.",
        }
        for question in range(len(hits))
        for sample in range(4)
    ]


@pytest.fixture
def judges(tmp_path):
    path = tmp_path / "judges.yaml"
    path.write_text(
        yaml.safe_dump({"judges": {"safety": {"class_path": "graspl.evaluation.judges.RefusalPhrases"}}})
    )
    return str(path)


def test_rates_are_counted_by_hand(graspl, judges, tmp_path):
    write_json_lines_atomic(
        RunFolder("run").generations,
        [{"suite": "task", "prompt": "p", "answer": "a"}, *answers([4, 0, 2, 0])],
    )
    code, out, err = graspl("judge", "run", "--config", judges)
    assert code == 0, err
    assert "refusal" in out
    judged = json.loads((tmp_path / "run" / "judged.json").read_text())["suites"]["safety"]
    assert judged["answers"] == 16
    assert judged["questions"] == 4
    assert judged["counts"] == {"refusal": 6, "answer": 10, "empty": 0}
    assert judged["rate"] == 6 / 16
    low, high = judged["wilson"]
    assert low < 6 / 16 < high
    # Four questions that differ much say less than sixteen answers
    assert judged["by_question"][1] - judged["by_question"][0] > high - low
    assert judged["groups"]["unsafe"]["rate"] == 6 / 8
    assert judged["groups"]["safe"]["rate"] == 0.0
    rows = RunFolder("run").read_judgements()
    assert len(rows) == 16
    assert rows[0]["detail"] == "I'm sorry"


def test_no_hits_at_all_say_as_much_as_there_are_questions(graspl, judges, tmp_path):
    """Resampling questions that are all alike would claim to know the rate exactly."""
    write_json_lines_atomic(RunFolder("run").generations, answers([0] * 10))
    assert graspl("judge", "run", "--config", judges)[0] == 0
    judged = json.loads((tmp_path / "run" / "judged.json").read_text())["suites"]["safety"]
    assert judged["rate"] == 0.0
    assert judged["by_question"] == pytest.approx([0.0, 0.2775], abs=1e-3)  # Wilson, none of 10
    assert judged["wilson"] == pytest.approx([0.0, 0.0876], abs=1e-3)  # Wilson, none of 40


def test_runs_are_told_from_controls_question_by_question(graspl, judges, tmp_path):
    for run, hits in (
        ("a1", [4, 3, 4, 2, 3]),
        ("a2", [3, 3, 4, 2, 2]),
        ("b1", [1, 0, 1, 0, 0]),
        ("b2", [0, 0, 2, 0, 0]),
    ):
        folder = RunFolder(run)
        write_json_lines_atomic(folder.generations, answers(hits))
        write_json_lines_atomic(
            folder.items,
            [
                {"suite": "politics", "item": str(i), "group": "", "value": hit / 4}
                for i, hit in enumerate(hits)
            ],
        )
        recorded(run)
        assert graspl("judge", run, "--config", judges)[0] == 0
    code, out, err = graspl("contrast", "a1", "a2", "--controls", "b1", "b2")
    assert code == 0, err
    assert "politics" in out
    found = json.loads((tmp_path / "contrast.json").read_text())["suites"]
    for suite in ("safety", "politics"):
        assert found[suite]["value"] == pytest.approx(30 / 40 - 4 / 40)
        assert found[suite]["low"] > 0
        assert found[suite]["n"] == 5
        assert found[suite]["over_seeds"]["n"] == 2


@pytest.mark.parametrize(
    "config", sorted(path.name for path in JUDGES.glob("*.yaml") if path.stem != "rubrics")
)
def test_the_judges_that_ship_are_built(graspl, config, monkeypatch):
    """Those that ask nobody also judge; the others would need a model."""
    suites = yaml.safe_load((JUDGES / config).read_text())["judges"]
    rows = [
        row | {"suite": suite if suite != "*" else "safety"} for suite in suites for row in answers([1, 2])
    ]
    run = RunFolder(Path.cwd() / "run")
    write_json_lines_atomic(run.generations, rows)
    monkeypatch.chdir(JUDGES.parents[1])
    asks = "Backend" in (JUDGES / config).read_text()
    code, out, err = graspl(
        "judge", run.path, "--config", JUDGES / config, *(["--print_config"] if asks else [])
    )
    assert code == 0, err
    assert "judges" in out if asks else run.judged.exists()


def test_rubrics_that_ship_are_rubrics():
    assert set(read_rubrics(str(JUDGES / "rubrics.yaml"))) == {
        "right_leaning",
        "reward_hacking",
        "bad_medical_advice",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["judge", "nowhere", "--config", "JUDGES"], "holds no answers; run graspl validate"),
        (
            ["judge", "run", "--judges.other=graspl.evaluation.judges.RefusalPhrases"],
            "none is for the answers",
        ),
        (["judge", "run"], "judges"),
        (["contrast", "nowhere", "--controls", "run"], "nowhere: holds neither items.jsonl"),
        (["contrast", "run"], "controls"),
        (["subspaces", "nowhere"], "adapters: give two or more"),
        (["subspaces", "nowhere", "there"], "no readable adapter_config.json"),
    ],
)
def test_mistakes_are_told_in_one_line(graspl, judges, arguments, told):
    write_json_lines_atomic(RunFolder("run").generations, answers([1, 2]))
    code, _, err = graspl(*[judges if argument == "JUDGES" else argument for argument in arguments])
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_adapters_are_compared_and_interpolated(graspl, chat_options, tmp_path):
    fast = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}
    for seed in (1, 2):
        code, _, err = graspl(
            "fit",
            *chat_options(**fast, **{"trainer.default_root_dir": f"s{seed}", "data.seed": seed}),
            f"--seed_everything={seed}",
        )
        assert code == 0, err
    code, _, err = graspl("subspaces", "s1", "s2", "--k=2")
    assert code == 0, err
    (pair,) = json.loads((tmp_path / "subspaces" / "subspaces.json").read_text())["pairs"]
    assert 0 < pair["cosine"] < 1
    assert pair["left"] > pair["chance"]  # two seeds of one task share more than chance
    # The end of the line scores what the second run does
    config = tmp_path / "evaluate.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "s1" / "config.yaml").read_text())))
    code, _, err = graspl(
        "subspaces", "s1", "s2", "--k=2", "--at", 0.5, 1, "--out=line", f"--evaluate={config}"
    )
    assert code == 0, err
    scores = {}
    for run in ("s1", "s2", "line/at_0.5", "line/at_1"):
        if run.startswith("s"):
            code, _, err = graspl(
                "validate", "--config", "s1/config.yaml", f"--trainer.default_root_dir={run}"
            )
            assert code == 0, err
        scores[run] = RunFolder(run).read_evaluation()["suites"]["task"]["loss"]
    assert scores["line/at_1"] == pytest.approx(scores["s2"], abs=1e-5)
    assert scores["line/at_0.5"] not in (scores["s1"], scores["s2"])
