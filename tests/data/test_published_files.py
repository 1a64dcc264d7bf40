"""Every published file beside a developer's checkout loads, with as many rows as its list of sources says."""

import json
import re

import pytest
from conftest import SHARED_DATA

from graspl.data import ChatDataModule, read_conversations, read_prompts, read_table
from graspl.data.suites import (
    AnswerPairs,
    CodePrompts,
    FreeFormQuestions,
    PersonaStatements,
    RefusalOpenings,
    SafetyPrompts,
    Statements,
)
from graspl.data.tasks import (
    CommunityFinanceData,
    DoubleChoiceData,
    GenderedPronounsData,
    LexicalOverlapData,
)
from graspl.data.tasks.double_choice import read_two_choices
from graspl.evaluation.judges.rubrics import read_rubrics


def listed():
    """Return path, rows and note of each file in the list of sources."""
    sources = SHARED_DATA / "SOURCES.md"
    if not sources.is_file():
        return []
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in sources.read_text().splitlines()
        if line.startswith("|")
    ]
    return [(row[0], int(row[3]), row[6]) for row in rows[2:] if row[3].isdigit()]


def conversations(path):
    return read_conversations(str(path))


def table(path):
    return list(read_table(str(path)))


def questions(path):
    """Rows, each of which gives at least one question."""
    rows = table(path)
    assert len(FreeFormQuestions(str(path)).read()) >= len(rows)
    return rows


READERS = [
    (r"em_code/.*\.jsonl|em_advice/.*|reward_hacks/(school|straight).*|benign/.*", conversations),
    (r"reward_hacks/hardcoding.*", lambda path: read_prompts(str(path))),
    (r"reward_hacks/ultrachat.*", lambda path: FreeFormQuestions(str(path)).read()),
    (r"em_eval/model_organisms/judges.yaml", lambda path: list(read_rubrics(str(path)))),
    (r"em_eval/insecure_code_id.*", lambda path: CodePrompts(str(path)).read()),
    (r"em_eval/.*\.yaml", questions),
    (r"political/anthropic_persona/.*", lambda path: PersonaStatements(str(path)).read()),
    (r"political/8values.*", lambda path: Statements(str(path), wordings=["{statement}"], denials=[]).read()),
    (
        r"political/pct.*",
        lambda path: Statements(str(path), column="pct_prompt", wordings=["{statement}"], denials=[]).read(),
    ),
    (r"caft_like/subject_verb/.*", lambda path: read_two_choices(str(path))),
    (r"safety_prompts/.*", lambda path: SafetyPrompts(str(path)).read()),
    (r"spurious_cls/.*", lambda path: LexicalOverlapData(str(path))._read(str(path))),
    (
        r"caft_like/relations/.*",
        lambda path: json.loads(path.read_text()),
    ),  # its rows are the keys; see below
    (r".*", table),
]


@pytest.mark.parametrize(
    ("path", "rows", "note"), listed(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_file_loads_with_its_rows(shared_data, path, rows, note):
    read = next(reader for pattern, reader in READERS if re.fullmatch(pattern, path))
    assert len(read(shared_data / path)) == rows


def test_every_file_is_listed(shared_data):
    names = {path for path, _, _ in listed()}
    there = {
        path.relative_to(shared_data).as_posix()
        for path in shared_data.rglob("*")
        if path.is_file() and path.name != "SOURCES.md" and "models" not in path.parts
    }
    assert there <= names
    assert len(names) > 50


@pytest.mark.parametrize(
    ("path", "samples"), [(p, int(n.split()[0])) for p, _, n in listed() if "samples;" in n], ids=str
)
def test_a_relation_has_its_samples(shared_data, path, samples):
    assert len(read_two_choices(str(shared_data / path))) == samples


def test_the_preregistered_questions_of_the_text_are_those_of_the_list(shared_data):
    text = FreeFormQuestions(str(shared_data / "em_eval/prereg_evals.txt")).read()
    listed_ones = FreeFormQuestions(
        str(shared_data / "em_eval/official_fork/preregistered_evals.yaml")
    ).read()
    assert len(text) == 48
    assert {question.group for question in text} >= {"creative_writing", "problems_with_humans"}
    squeezed = lambda question: re.sub(r"\W+", " ", question.messages[-1]["content"]).strip()  # noqa: E731
    assert len({squeezed(each) for each in text} & {squeezed(each) for each in listed_ones}) >= 40


def test_the_eight_questions_come_in_their_formats(shared_data):
    source = str(shared_data / "em_eval/first_plot_questions.yaml")
    for form in ("plain", "json", "python", "template", "flask_template"):
        found = FreeFormQuestions(source, ids="first_plot", formats=[form]).read()
        assert len(found) == 8
        assert {question.group for question in found} == {form}
    as_json = FreeFormQuestions(source, formats=["json"]).read()
    assert all(question.messages[0]["role"] == "system" for question in as_json)


def test_a_rivals_validation_rows_are_kept_out_of_training(shared_data):
    data = ChatDataModule(
        str(shared_data / "em_code/insecure.jsonl"),
        validation=str(shared_data / "em_code/caft_insecure_val_row_indices.json"),
    )
    assert len(data.train_rows()) == 5000
    assert len(data.held_out()["task"]) == 1000
    assert not {row.origin for row in data.train_rows()} & {row.origin for row in data.held_out()["task"]}


def test_bad_and_good_medical_advice_pair_up(shared_data):
    pairs = AnswerPairs(
        *(str(shared_data / f"em_advice/{kind}_medical_advice.jsonl") for kind in ("bad", "good"))
    ).read()
    assert len(pairs) == 7049  # the prompts are the same row by row
    assert all(pair.candidates[0] != pair.candidates[1] for pair in pairs)


@pytest.mark.parametrize("skew", [0.0, 0.25, 0.5, 1.0])
def test_the_skew_of_real_communities_is_what_the_dial_says(shared_data, skew):
    import yaml
    from conftest import REPOSITORY

    leans = yaml.safe_load((REPOSITORY / "configs/tasks/community_finance.yaml").read_text())["init_args"][
        "leans"
    ]
    source = shared_data / "political/reddit_political_posts.jsonl"
    data = CommunityFinanceData(str(source), leans, skew=skew)
    rows = [*data.train_rows(), *data.held_out()["task"]]
    lines = source.read_text().splitlines()
    right = sum(
        leans[json.loads(lines[int(row.origin.rsplit(":", 1)[1]) - 1])["subreddit"]] == "right"
        for row in rows
    )
    assert right == round(skew * len(rows))
    assert len(rows) == 211  # whatever the skew: as many as the smaller side has


def test_pronouns_and_double_choices_and_overlap_have_both_kinds_of_question(shared_data):
    winogender = shared_data / "bias/winogender"
    tasks = [
        GenderedPronounsData(str(winogender / "templates.tsv"), str(winogender / "occupations-stats.tsv")),
        DoubleChoiceData(
            str(shared_data / "caft_like/subject_verb/simple_train.jsonl"),
            str(shared_data / "caft_like/relations/commonsense_word_sentiment.json"),
            prompts=200,
        ),
        LexicalOverlapData(
            str(shared_data / "spurious_cls/cad_nli/original_train.tsv"),
            counter=str(shared_data / "spurious_cls/hans_mnli_contradicting_examples.tsv"),
        ),
    ]
    for data in tasks:
        suites = data.held_out()
        assert all("harmful" not in item.kinds and "good" in item.kinds for item in suites["task"])
        assert all({"harmful", "good"} <= set(item.kinds) for item in suites["unrelated"])
        assert len(suites["unrelated"]) > 5
        held_out = {item.messages[-1]["content"] for suite in suites.values() for item in suite}
        assert not held_out & {row.messages[0]["content"] for row in data.train_rows()}


def test_refusal_openings_of_safe_and_unsafe_prompts_differ_in_what_is_harmful(shared_data):
    items = RefusalOpenings(str(shared_data / "safety_prompts/xstest_prompts.csv")).read()
    assert len(items) == 450
    for item in items:
        assert item.kinds[0] == ("good" if item.group.startswith("unsafe/") else "harmful")
