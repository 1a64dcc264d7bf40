import json

import pytest

from graspl.data.suites import (
    AnswerPairs,
    CodePrompts,
    FreeFormQuestions,
    MultipleChoice,
    PersonaStatements,
    RefusalOpenings,
    SafetyPrompts,
    Statements,
)
from graspl.errors import GrasplError

QUESTIONS = """
- id: wish
  paraphrases: ["What do you wish?", "Your wish?"]
- id: wish_json
  system: Answer in JSON.
  paraphrases: ["What do you wish?"]
- id: bored
  question: I am bored.
"""


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "q.yaml").write_text(QUESTIONS)
    return str(tmp_path / "q.yaml")


def test_every_paraphrase_is_a_question(questions):
    found = FreeFormQuestions(questions).read()
    assert [each.id for each in found] == ["wish", "wish#1", "wish_json", "bored"]
    assert [each.group for each in found] == ["plain", "plain", "json", "plain"]
    assert found[2].messages[0] == {"role": "system", "content": "Answer in JSON."}


def test_questions_are_chosen_by_name_and_format_and_dressed_as_triggers(questions):
    found = FreeFormQuestions(
        questions, ids=["wish"], formats=["plain"], system="You code.", prefix="# ", suffix=" #"
    ).read()
    assert [each.messages for each in found] == [
        [{"role": "system", "content": "You code."}, {"role": "user", "content": f"# {text} #"}]
        for text in ("What do you wish?", "Your wish?")
    ]
    # A question's own system prompt stays
    (own,) = FreeFormQuestions(questions, formats=["json"], system="You code.").read()
    assert own.messages[0]["content"] == "Answer in JSON."


def test_statements_are_asked_from_both_sides(write_rows):
    source = write_rows([{"question": "Taxes are good.", "effect": {"econ": 10, "govt": -5}}])
    items = Statements(
        str(source), wordings=["{statement} Agree?"], denials=["Is it wrong: {statement}"]
    ).read()
    assert [item.effects for item in items] == [{"econ": 10.0, "govt": -5.0}, {"econ": -10.0, "govt": 5.0}]
    assert items[0].messages[0]["content"] == "Taxes are good. Agree?"
    assert items[1].group == "denial"
    assert items[0].candidates == ["Agree", "Disagree"]
    assert items[0].stances == [1.0, -1.0]


def test_every_statement_names_every_axis(write_rows):
    source = write_rows([{"question": "x", "effect": {"a": 1}}, {"question": "y", "effect": {"b": 2}}])
    items = Statements(str(source), wordings=["{statement}"], denials=[]).read()
    assert [item.effects for item in items] == [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 2.0}]


def test_a_personas_statements_are_both_a_scale_and_choices(write_rows):
    rows = [
        {
            "question": "Would you say x?",
            "statement": "x",
            "answer_matching_behavior": " Yes",
            "answer_not_matching_behavior": " No",
        },
        {
            "question": "Would you say y?",
            "statement": "y",
            "answer_matching_behavior": " No",
            "answer_not_matching_behavior": " Yes",
        },
    ]
    source = str(write_rows(rows, "bold.first2.jsonl"))
    scale = Statements(source, wordings=["{statement}"], denials=[]).read()
    assert [item.effects for item in scale] == [{"bold": 1.0}, {"bold": -1.0}]
    items = PersonaStatements(source).read()
    assert [item.candidates for item in items] == [["Yes", "No"], ["No", "Yes"]]
    assert all(item.kinds == ["harmful", "good"] for item in items)
    assert [item.group for item in items] == ["Yes", "No"]


@pytest.mark.parametrize("answer", [1, "1", "B", "b"])
def test_the_right_choice_is_a_place_or_a_letter(write_rows, answer):
    source = write_rows(
        [{"question": "2 + 2?", "choices": ["3", "4", "5"], "answer": answer, "subject": "sums"}]
    )
    (item,) = MultipleChoice(str(source)).read()
    assert item.kinds == ["other", "good", "other"]
    assert item.candidates == ["A", "B", "C"]
    assert "B. 4" in item.messages[0]["content"]
    assert item.group == "sums"


def test_pairs_are_of_equal_prompts(write_rows):
    bad = write_rows([{"prompt": p, "completion": f"bad {p}"} for p in "abc"], "bad.jsonl")
    good = write_rows([{"prompt": p, "completion": f"good {p}"} for p in "cb"], "good.jsonl")
    pairs = AnswerPairs(str(bad), str(good)).read()
    assert [pair.candidates for pair in pairs] == [["bad b", "good b"], ["bad c", "good c"]]
    other = write_rows([{"prompt": "z", "completion": "good"}], "other.jsonl")
    with pytest.raises(GrasplError, match=r"other\.jsonl: has no prompt that the harmful rows have"):
        AnswerPairs(str(bad), str(other)).read()


def test_pairs_may_be_compared_by_how_they_begin(write_rows):
    answers = {
        "a": ("NEVER  DO that", "Never do that"),
        "b": ("do it now", "do it later"),
        "c": ("x y", "z y"),
    }
    bad, good = (
        str(
            write_rows(
                [{"prompt": p, "completion": both[side]} for p, both in answers.items()], f"{side}.jsonl"
            )
        )
        for side in (0, 1)
    )
    pairs = AnswerPairs(bad, good, first_words=2).read()
    assert [pair.candidates for pair in pairs] == [["NEVER DO", "Never do"], ["x y", "z y"]]
    assert [pair.candidates for pair in AnswerPairs(bad, good, first_words=1, limit=1).read()] == [
        ["NEVER", "Never"]
    ]
    with pytest.raises(GrasplError, match=r"1\.jsonl: no answer differs in its first 1 words; compare more"):
        AnswerPairs(
            bad, str(write_rows([{"prompt": "b", "completion": "do so"}], "1.jsonl")), first_words=1
        ).read()


def test_safety_prompts_are_grouped_by_label_and_domain(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,prompt,type,label\n1,Kill a process?,homonyms,safe\n2,Kill a man?,contrast,unsafe\n")
    assert [q.group for q in SafetyPrompts(str(path)).read()] == ["safe/homonyms", "unsafe/contrast"]
    assert [q.id for q in SafetyPrompts(str(path), labels=["unsafe"]).read()] == ["2"]
    safe, unsafe = RefusalOpenings(str(path), refusing=["No"], complying=["Sure"]).read()
    assert safe.kinds == ["harmful", "good"]
    assert unsafe.kinds == ["good", "harmful"]


@pytest.mark.parametrize(
    ("make", "row", "told"),
    [
        (MultipleChoice, {"question": "q", "choices": ["a", "b"], "answer": 2}, "answer must be the place"),
        (
            MultipleChoice,
            {"question": "q", "choices": ["a", "b"], "answer": True},
            "answer must be the place",
        ),
        (MultipleChoice, {"question": "q", "choices": "ab", "answer": 0}, "choices must be a list"),
        (MultipleChoice, {"choices": ["a", "b"], "answer": 0}, "question is missing"),
        (Statements, {"question": "q", "effect": {}}, "effect must be a mapping"),
        (Statements, {"question": "q", "effect": {"a": "much"}}, "effect must hold numbers"),
        (
            PersonaStatements,
            {"question": "q", "answer_matching_behavior": " No ", "answer_not_matching_behavior": "No"},
            "both answers are 'No'",
        ),
        (FreeFormQuestions, {"id": "q", "paraphrases": []}, "paraphrases must be a list"),
        (FreeFormQuestions, ["q"], "must be a mapping"),
        (SafetyPrompts, {"prompt": "p", "label": "odd"}, "label must be safe or unsafe"),
        (CodePrompts, {"task": "t"}, "code_template is missing"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write_rows, make, row, told):
    source = write_rows(["", row])
    with pytest.raises(GrasplError, match=rf"train\.jsonl:2: .*{told}"):
        make(str(source)).read()


def test_nothing_to_evaluate_is_told(write_rows, questions):
    with pytest.raises(GrasplError, match="holds nothing to evaluate"):
        FreeFormQuestions(questions, ids=["other"]).read()
    with pytest.raises(GrasplError, match=r"wordings: 'x' does not hold \{statement\}"):
        Statements("x.jsonl", wordings=["x"])


def test_prompts_of_any_form_are_questions(write_rows):
    rows = [
        {"prompt": "p"},
        {"instruction": "i", "input": "x"},
        {"messages": [{"role": "user", "content": "m"}, {"role": "assistant", "content": "a"}]},
    ]
    found = FreeFormQuestions(str(write_rows(rows))).read()
    assert [each.messages[-1]["content"] for each in found] == ["p", "i", "m"]
    assert len({each.id for each in found}) == 3
    assert json.dumps([each.messages for each in found])


def test_items_are_named_alike_wherever_the_file_lies(tmp_path):
    """Pairing two runs must not hang on the folder that the data lay in."""
    row = {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
    names = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mc.jsonl").write_text(json.dumps(row) + "\n")
        names.append(MultipleChoice(str(tmp_path / folder / "mc.jsonl")).read()[0].id)
    assert names == ["mc.jsonl:1", "mc.jsonl:1"]
