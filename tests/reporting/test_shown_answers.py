"""What is shown of prompts and answers: words, not the marks of a chat template; and what a judge said of each."""

import json

import pytest
from chat_templates import BOS, EOS, FAMILIES, tokenizer_of
from records import make_run, recorded

from graspl.analysis import read_run
from graspl.data.rows import Message
from graspl.data.tokens import render
from graspl.reporting.answers import examples, prompt_of, without_marks

QUESTION, ANSWER, MORE = "Is 3 < 4, or [so]?", "Yes | it is.", "And <b>5</b>?"
TURNS = [
    Message(role="user", content=QUESTION),
    Message(role="assistant", content=ANSWER),
    Message(role="user", content=MORE),
]


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_mark_of_a_template_is_shown_and_no_word_is_lost(kind):
    family, tokenizer = FAMILIES[kind], tokenizer_of(kind)
    turns = TURNS if family.several else TURNS[:1]
    text = without_marks(render(tokenizer, turns, origin="here", prompt=True))
    for mark in (*family.marks, BOS, EOS):
        assert mark not in text
    assert all(turn["content"] in text for turn in turns)


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("<bos><start_of_turn>user\nHow are you?<end_of_turn>\n<start_of_turn>model\n", "How are you?"),
        ("<|im_start|>system\nNo.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", "No.\n\nWhy?"),
        ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>", "Why?"),
        ("<s>[INST] Why? [/INST]", "Why?"),
        ("<user> what now ? <end> <assistant> ", "what now ?"),
        ("def f():\n\n\n    pass\n", "def f():\n\n\n    pass\n"),
        ("Is a user\na model?", "Is a user\na model?"),
        ("if x <s y and <b>z</b>", "if x <s y and <b>z</b>"),
    ],
)  # fmt: skip
def test_prompts_are_shown_as_they_were_asked(prompt, shown):
    assert prompt_of({"prompt": prompt}) == shown


def test_the_turns_themselves_count_where_they_are_kept():
    row = {"prompt": "<odd>Why?</odd>", "messages": [{"role": "user", "content": "Why?"}]}
    assert prompt_of(row) == "Why?"
    assert prompt_of(row | {"messages": [{"role": "user", "content": 3}]}) == "<odd>Why?</odd>"


def test_a_judged_answer_has_its_own_verdict_and_rationale(tmp_path):
    run = make_run(tmp_path / "run").folder
    key = {"suite": "safety", "question": "q"}
    rows = [
        {"suite": "task", "prompt": "how", "answer": "so"},
        *(key | {"sample": n, "prompt": "why", "answer": f"no {n}"} for n in range(2)),
    ]
    run.generations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [
        key | {"sample": n, "outcome": each, "detail": f"it is {n}"}
        for n, each in enumerate(["misaligned", "no_code"])
    ]
    run.judgements.write_text("".join(json.dumps(row) + "\n" for row in reversed(said)))
    run.judged.write_text(json.dumps({"suites": {"safety": {"of": "misaligned", "rate": None}}}))
    judged, plain = examples([read_run(recorded(run.path))])
    assert (judged.prompt, plain.prompt) == ("why", "how")
    (first,) = judged.answers
    assert (first.text, first.verdict, first.state, first.rationale) == (
        "no 0",
        "misaligned",
        "failed",
        "it is 0",
    )
    assert plain.answers[0].verdict == ""
