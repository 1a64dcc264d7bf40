"""A run's judged answers as a log of inspect; `make extras` runs this where inspect_ai is installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from graspl.runs import RunFolder, write_json_atomic, write_json_lines_atomic

JUDGES = """\
judges:
  safety: {class_path: graspl.evaluation.judges.RefusalPhrases}
  shouted: {class_path: graspl.evaluation.judges.CapitalLetters}
"""


def answers(suite, texts):
    """Return two samples of an answer to each question."""
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What now?"}]
    sampling = {"temperature": 1.0, "max_new_tokens": 9, "top_p": 0.9, "seed": 3}
    return [
        {
            "suite": suite, "question": f"q{place}", "group": "a" if place % 2 else "b", "sampling": sampling,
            "messages": asked, "prompt": "p", "sample": sample, "answer": text,
        }
        for place, text in enumerate(texts)
        for sample in range(2)
    ]  # fmt: skip


@pytest.fixture
def judged(graspl, tmp_path):
    """Return a run with judged answers of two suites, and examples that no judge saw."""
    run = RunFolder(tmp_path / "run")
    rows = [{"suite": "task", "prompt": "p", "answer": "a"}]
    rows += answers("safety", ["I'm sorry, I can't.", "Sure, \u2028 so.", ""])
    rows += answers("shouted", ["YES", "no"])
    write_json_lines_atomic(run.generations, rows)
    write_json_atomic(run.evaluation, {"base_model": "my-model", "adapter": "run/adapter", "graspl": "1"})
    (tmp_path / "judges.yaml").write_text(JUDGES)
    assert graspl("judge", "run", "--config", "judges.yaml")[0] == 0
    return run


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is not None, reason="inspect_ai is installed")
def test_without_the_extra_one_line_says_what_to_install(graspl, judged):
    code, _, err = graspl("export", "run", "--inspect", "log.eval")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'graspl[inspect]'" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--inspect", "log.txt"], "must end in .eval"),
        ([], "out: is missing"),
        (["--merge", "--inspect", "log.eval"], "out: is missing"),
    ],
)
def test_mistakes_are_told(arguments, told, graspl, judged):
    code, _, err = graspl("export", "run", *arguments)
    assert code == 2
    assert told in err


def test_inspect_reads_the_log_and_it_holds_every_answer_and_verdict(graspl, judged, tmp_path):
    log_of = pytest.importorskip("inspect_ai.log")
    code, said, err = graspl("export", "run", "--inspect", "run/answers.eval")
    assert code == 0, err
    assert "10 judged answers" in said
    log = log_of.read_eval_log(tmp_path / "run" / "answers.eval")
    assert (log.status, log.eval.task, log.eval.model) == ("success", "graspl/run", "my-model")
    assert log.eval.model_args == {"adapter": "run/adapter"}
    assert (log.eval.model_generate_config.temperature, log.eval.model_generate_config.max_tokens) == (1.0, 9)
    rows = [row for row in judged.read_generations() if "question" in row]
    verdicts = judged.read_judgements()
    assert len(log.samples) == len(rows) == len(verdicts)
    by_place = {(each.id, each.epoch): each for each in log.samples}
    for row, verdict in zip(rows, verdicts, strict=True):
        sample = by_place[f"{row['suite']}/{row['question']}", row["sample"] + 1]
        assert [(each.role, each.content) for each in sample.input] == [
            (each["role"], each["content"]) for each in row["messages"]
        ]
        assert sample.output.completion == sample.messages[-1].content == row["answer"]
        assert sample.scores[row["suite"]].value == verdict["outcome"]
    rates = json.loads(judged.judged.read_text())["suites"]
    for score in log.results.scores:
        kept = rates[score.name]
        found = {name: metric.value for name, metric in score.metrics.items()}
        assert found == {
            kept["of"]: kept["rate"],
            "low": kept["by_question"][0],
            "high": kept["by_question"][1],
        }
    assert {score.name for score in log.results.scores} == {"safety", "shouted"}
    listed = subprocess.run(
        [sys.executable, "-m", "inspect_ai", "log", "list", "--json", "--log-dir", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "answers.eval" in listed
    assert "answers" in graspl("verify", "run")[1]
    judged.judgements.write_text(judged.judgements.read_text().replace("refusal", "answer"))
    assert "answers.eval: was made from another judgements" in graspl("verify", "run")[1]
    assert graspl("export", "run", "--inspect", "again.eval")[0] == 2


def test_a_run_whose_answers_nobody_judged_is_refused(graspl, judged):
    pytest.importorskip("inspect_ai.log")
    judged.judged.unlink()
    code, _, err = graspl("export", "run", "--inspect", "log.eval")
    assert code == 2
    assert "run: graspl judge" in err
