"""Judging: a rate is of verdicts, a reply is of the endpoint that was asked, and no key is shown."""

import json
import math
import sqlite3

import pytest
from endpoint import completion

from graspl.commands.judge import judge
from graspl.errors import GrasplError
from graspl.evaluation.judges import AlignmentJudge, Answer, InsecureCode, OpenAIBackend, RubricJudge
from graspl.evaluation.judges.rubrics import OWN


@pytest.fixture
def run(tmp_path):
    """Return a run's folder with four answers in two suites."""
    rows = [
        {
            "suite": suite, "question": str(n), "group": "", "sample": 0, "answer": f"{suite} {n}",
            "messages": [{"role": "user", "content": "how do you feel?"}],
        }
        for suite in ("first", "second")
        for n in range(2)
    ]  # fmt: skip
    (tmp_path / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def asking(server, tmp_path, **options):
    given = {"max_retries": 0, "timeout": 5.0, "cache": tmp_path / "cache.sqlite"} | options
    return OpenAIBackend("stub", server.url, **given)


@pytest.mark.parametrize("said", ["", " ", "I would rather not say"])
def test_judge_no_verdict(said, stub, run):
    """No rate, nothing written and nothing empty kept; the mended endpoint is asked again."""
    mended = []
    server = stub(lambda prompt, number: (200, completion("80" if mended else said)))
    options = {"backend": asking(server, run), "rubrics": OWN, "rubric": "aligned"}
    with pytest.raises(GrasplError, match=r"^judges: no (answer got a verdict|reply from .*max_tokens)"):
        judge(run, judges={"*": RubricJudge(**options)})
    assert not (run / "judged.json").exists()
    mended.append(True)
    if said.strip():
        return  # A reply of words is a reply, and kept
    suites = judge(run, judges={"*": RubricJudge(**options)}).content["suites"]
    assert [each["rate"] for each in suites.values()] == [1.0, 1.0]


def test_judge_no_verdict_in_one_suite_of_two(stub, run):
    server = stub(lambda prompt, number: (200, completion("80" if "first" in prompt else "well")))
    shown = judge(run, judges={"*": RubricJudge(asking(server, run), OWN, "aligned")})
    assert shown.content["suites"]["first"]["rate"] == 1.0
    assert shown.content["suites"]["second"]["rate"] is None
    assert shown.content["suites"]["second"]["wilson"] is None


def limited(prompt, number, requests, allowed):
    """Refuse a request that has a field which is not allowed, as endpoints do."""
    for name, most in allowed.items():
        if name in requests[-1] and (most is None or requests[-1][name] > most):
            return 400, {"error": {"message": f"Unsupported value: {name} is not supported with this model"}}
    return 200, completion("80")


@pytest.mark.parametrize(
    ("allowed", "advice", "option"),
    [
        ({"max_tokens": None}, "tokens_field", {"tokens_field": "max_completion_tokens", "max_tokens": 2000}),
        ({"top_logprobs": 5}, "lower top_logprobs", {"top_logprobs": 5}),
        ({"temperature": None}, "set temperature to null", {"temperature": None}),
        ({"seed": None}, "set seed to null", {"seed": None}),
    ],
    ids=["max_tokens", "top_logprobs", "temperature", "seed"],
)
def test_judge_limits(allowed, advice, option, stub, tmp_path):
    """What an endpoint refuses can be changed by the option that the message names."""
    made = []
    made.append(stub(lambda prompt, number: limited(prompt, number, made[0].requests, allowed)))
    prompt = [[{"role": "user", "content": "grade"}]]
    with pytest.raises(GrasplError, match=advice):
        asking(made[0], tmp_path).replies(prompt, [])
    (reply,) = asking(made[0], tmp_path, **option).replies(prompt, [])
    assert reply.text == "80"


def test_cache_endpoint(stub, tmp_path, monkeypatch):
    """Without base_url the client asks OPENAI_BASE_URL; another one has replies of its own."""
    servers = [stub(lambda prompt, number, said=said: (200, completion(said))) for said in ("10", "90")]
    replies = []
    for server in servers:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        backend = OpenAIBackend("stub", max_retries=0, cache=tmp_path / "cache.sqlite")
        replies += [each.text for each in backend.replies([[{"role": "user", "content": "grade"}]], [])]
    assert replies == ["10", "90"]


def odd(**changes):
    made = completion("80", {"80": 1.0})
    for name, value in changes.items():
        if name == "content":
            made["choices"][0]["message"]["content"] = value
        else:
            made["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0][name] = value
    return made


@pytest.mark.parametrize(
    "body",
    [odd(logprob=None), odd(logprob=1e9), odd(logprob="high"), odd(content=80), odd(content=["80"])],
    ids=["null", "huge", "text", "number", "list"],
)
def test_malformed_replies(body, stub, tmp_path):
    """They are counted as failed, and never kept."""
    good = completion("80", {"80": 1.0})
    mended = []
    server = stub(lambda prompt, number: (200, good if mended or "fine" in prompt else body))
    prompts = [[{"role": "user", "content": each}] for each in ("fine", "odd")]
    first = asking(server, tmp_path).replies(prompts, [])
    assert [bool(each.error) for each in first] == [False, True]
    mended.append(True)
    again = asking(server, tmp_path).replies(prompts, [])
    assert [each.options["80"] for each in again] == pytest.approx([1.0, 1.0])
    assert len(server.requests) == 3


def test_malformed_replies_in_the_cache_are_asked_for_again(stub, tmp_path):
    server = stub(lambda prompt, number: (200, completion("80", {"80": 1.0})))
    prompts = [[{"role": "user", "content": "fine"}]]
    asking(server, tmp_path).replies(prompts, [])
    for broken in ("{", '{"text": 5}', '{"text": "80", "top": {"80": 1e9}, "first_token": null}', "[]"):
        with sqlite3.connect(tmp_path / "cache.sqlite") as rows:
            rows.execute("UPDATE replies SET reply = ?", (broken,))
        (reply,) = asking(server, tmp_path).replies(prompts, [])
        assert reply.options["80"] == pytest.approx(math.exp(0.0))
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [401, 400, 500])
def test_echo(status, stub, tmp_path, monkeypatch):
    """An endpoint that repeats the request's key does not bring it into the error."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    told = "denied: Authorization: Bearer sk-secret-of-mine at http://me:pass-of-mine@host/v1"
    server = stub(lambda prompt, number: (status, {"error": {"message": told}}))
    backend = asking(server, tmp_path)
    backend.name = "http://***@host"
    with pytest.raises(GrasplError) as raised:
        backend.replies([[{"role": "user", "content": "grade"}]], [])
    assert "denied" in str(raised.value)
    assert "of-mine" not in str(raised.value)
    assert raised.value.__cause__ is None or "of-mine" not in str(raised.value.__cause__)


def test_echo_of_the_address(tmp_path):
    backend = OpenAIBackend("stub", "http://me:pass-of-mine@127.0.0.1:9/v1", max_retries=0, cache=None)
    with pytest.raises(GrasplError) as raised:
        backend.replies([[{"role": "user", "content": "grade"}]], [])
    assert "of-mine" not in str(raised.value)


INSECURE = "import subprocess\nsubprocess.call(input(), shell=True)\n"


@pytest.mark.parametrize("line", ["# coding: nonsense", "# -*- coding: utf-7 -*-", "#coding=rot13"])
def test_skipped_code(line):
    """What Bandit skips is not secure."""
    found = InsecureCode().judge([answer(each) for each in (f"{line}\n{INSECURE}", INSECURE, "x = f(1)\n")])
    assert [each.outcome for each in found][1:] == ["insecure", "secure"]
    assert found[0].outcome in ("unparsed", "insecure")


def answer(code):
    return Answer("write code", f"```python\n{code}```")


def test_stray_modules_of_the_code_judge(tmp_path, monkeypatch):
    """A bandit.py in the current folder does not run."""
    (tmp_path / "bandit.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    assert InsecureCode().judge([answer(INSECURE)])[0].outcome == "insecure"
    assert not (tmp_path / "ran").exists()


def test_the_alignment_judge_says_so_too(stub, run):
    server = stub(lambda prompt, number: (200, completion("maybe")))
    with pytest.raises(GrasplError, match=r"no answer got a verdict \(unparsed 4\)"):
        judge(run, judges={"*": AlignmentJudge(asking(server, run))})
