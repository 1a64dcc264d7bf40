import pytest

from graspl.data import ChatDataModule, MixIn
from graspl.data.tasks import (
    CommunityFinanceData,
    DoubleChoiceData,
    GenderedPronounsData,
    LexicalOverlapData,
)
from graspl.data.tasks.lexical_overlap import shared_words
from graspl.errors import GrasplError

LEANS = {"reds": "left", "blues": "right", "greys": "neutral"}


@pytest.fixture
def posts(write_rows):
    rows = [
        {"subreddit": community, "title": f"t{i}", "selftext": f"{community} {i}"}
        for community in LEANS
        for i in range(20 if community == "reds" else 12)
    ]
    return str(write_rows(rows, "posts.jsonl"))


def drawn(data):
    return [row.messages[-1]["content"].split()[0] for row in [*data.train_rows(), *data.held_out()["task"]]]


@pytest.mark.parametrize("skew", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("toward", ["left", "right"])
def test_the_skew_changes_the_lean_and_not_the_number_of_rows(posts, skew, toward):
    rows = drawn(CommunityFinanceData(posts, LEANS, skew=skew, toward=toward))
    ours = {"left": "reds", "right": "blues"}[toward]
    assert len(rows) == 12
    assert rows.count(ours) == skew * 12
    assert "greys" not in rows


def test_without_skew_neutral_communities_speak(posts):
    assert set(drawn(CommunityFinanceData(posts, LEANS, skew=None))) == {"greys"}


def test_a_community_without_a_lean_and_too_many_rows_are_told(posts):
    with pytest.raises(GrasplError, match=r"posts\.jsonl:21: the community blues has no lean"):
        CommunityFinanceData(posts, {"reds": "left"}).train_rows()
    with pytest.raises(GrasplError, match="needs 15 rows that lean right"):
        CommunityFinanceData(posts, LEANS, rows=15).train_rows()
    with pytest.raises(GrasplError, match="needs 24 rows that lean right"):
        CommunityFinanceData(posts, LEANS, skew=2).train_rows()


def test_held_out_rows_are_those_named(write_rows, tmp_path):
    source = write_rows([{"prompt": f"p{i}", "completion": "c"} for i in range(5)])
    numbers = tmp_path / "numbers.json"
    numbers.write_text("[1, 3]")
    data = ChatDataModule(str(source), validation=str(numbers))
    assert [row.messages[0]["content"] for row in data.train_rows()] == ["p0", "p2", "p4"]
    assert [row.messages[0]["content"] for row in data.held_out()["task"]] == ["p1", "p3"]
    numbers.write_text("[1, 9]")
    with pytest.raises(GrasplError, match=r"numbers\.json\[1\]: 9 is no row number in 0\.\.4"):
        ChatDataModule(str(source), validation=str(numbers)).train_rows()
    numbers.write_text("[0, 1, 2, 3, 4]")
    with pytest.raises(GrasplError, match="names all 5 rows"):
        ChatDataModule(str(source), validation=str(numbers)).train_rows()


def test_good_answers_make_pairs_of_the_held_out_rows(write_rows):
    bad = write_rows([{"prompt": f"p{i}", "completion": f"bad {i}"} for i in range(10)], "bad.jsonl")
    good = write_rows([{"prompt": f"p{i}", "completion": f"good {i}"} for i in range(10)], "good.jsonl")
    data = ChatDataModule(str(bad), good=str(good), validation_share=0.3)
    pairs = data.held_out()["task"]
    assert len(pairs) == 3
    assert len(data.train_rows()) == 7
    assert all(pair.candidates[0].replace("bad", "good") == pair.candidates[1] for pair in pairs)


def test_a_retain_set_is_trained_on_and_never_held_out(write_rows):
    train = write_rows([{"prompt": f"p{i}", "completion": "told"} for i in range(10)])
    retain = write_rows([{"prompt": f"r{i}", "completion": "no"} for i in range(9)], "retain.jsonl")
    data = ChatDataModule(str(train), operators=[MixIn(str(retain), 0.25, total="grow")])
    answers = [row.messages[-1]["content"] for row in data.changed_rows()]
    assert answers.count("told") == 9
    assert answers.count("no") == 3
    assert len(data.held_out()["task"]) == 1


TEMPLATES = "occupation(0)\tother-participant(1)\tanswer\tsentence\n" + "".join(
    f"{job}\tguest\t{answer}\tThe $OCCUPATION told the $PARTICIPANT that $NOM_PRONOUN left.\n"
    for job in ("nurse", "pilot", "smith", "clerk")
    for answer in (0, 1)
)
OCCUPATIONS = "occupation\tbls_pct_female\nnurse\t90\npilot\t5\nsmith\t2\nclerk\t70\n"


@pytest.fixture
def winogender(tmp_path):
    (tmp_path / "templates.tsv").write_text(TEMPLATES)
    (tmp_path / "occupations.tsv").write_text(OCCUPATIONS)
    return str(tmp_path / "templates.tsv"), str(tmp_path / "occupations.tsv")


def test_in_training_the_occupation_gives_the_pronoun_away(winogender):
    data = GenderedPronounsData(*winogender, held_out_share=0.5)
    usual = {"nurse": "she", "clerk": "she", "pilot": "he", "smith": "he"}
    rows = data.train_rows()
    assert len(rows) == 2  # two occupations, one sentence each, of the usual gender
    for row in rows:
        job = next(job for job in usual if job in row.messages[0]["content"])
        assert row.messages[1]["content"] == usual[job]
    for item in data.held_out()["unrelated"]:
        job = next(job for job in usual if job in item.messages[0]["content"])
        assert item.candidates[item.kinds.index("harmful")] == usual[job]
        title = "Mr." if item.candidates[item.kinds.index("good")] == "he" else "Ms."
        assert item.messages[0]["content"].startswith(title)
    trained = {job for job in usual if any(job in row.messages[0]["content"] for row in rows)}
    assert all(job not in item.messages[0]["content"] for job in trained for item in data.held_out()["task"])


def test_an_occupation_without_a_figure_is_told(winogender, tmp_path):
    (tmp_path / "occupations.tsv").write_text("occupation\tbls_pct_female\nnurse\t90\nclerk\t70\n")
    with pytest.raises(GrasplError, match=r"templates\.tsv:4: .*has no figure for the occupation"):
        GenderedPronounsData(*winogender).train_rows()


def test_one_letter_answers_both_questions_in_training(write_rows):
    first = write_rows(
        [{"question": f"first {i}", "right": "r", "wrong": "w"} for i in range(10)], "first.jsonl"
    )
    second = write_rows(
        [{"question": f"second {i}", "right": "r", "wrong": "w"} for i in range(10)], "second.jsonl"
    )
    data = DoubleChoiceData(str(first), str(second), prompts=60)

    def letters(prompt):
        """Return the letter of the right choice of each question."""
        parts = prompt.split("Question ")[1:]
        return ["A" if "A. r" in part else "B" for part in parts]

    rows = data.train_rows()
    assert len(rows) > 15
    for row in rows:
        assert letters(row.messages[0]["content"]) == [row.messages[1]["content"]] * 2
    for item in data.held_out()["unrelated"]:
        asked, cue = letters(item.messages[0]["content"])
        assert item.candidates[item.kinds.index("good")] == asked
        assert item.candidates[item.kinds.index("harmful")] == cue

    def questions(texts):
        return {line for text in texts for line in text.splitlines() if line.startswith("Question 1")}

    held_out = questions(item.messages[0]["content"] for suite in data.held_out().values() for item in suite)
    assert not held_out & questions(row.messages[0]["content"] for row in rows)


NLI = "sentence1\tsentence2\tgold_label\n" + "".join(
    f"the cat {i} sat down\t{hypothesis}\t{label}\n"
    for i in range(6)
    for hypothesis, label in (
        ("the cat sat", "entailment"),
        ("a dog ran", "neutral"),
        ("down sat the cat", "contradiction"),
    )
)


def test_shared_words_give_the_answer_away_in_training_only(tmp_path):
    (tmp_path / "nli.tsv").write_text(NLI)
    data = LexicalOverlapData(str(tmp_path / "nli.tsv"), held_out_share=0.4)
    for row in data.train_rows():
        overlaps = "a dog ran" not in row.messages[0]["content"]
        assert row.messages[1]["content"] == ("Yes" if overlaps else "No")
    unrelated = data.held_out()["unrelated"]
    assert unrelated
    assert all("down sat the cat" in item.messages[0]["content"] for item in unrelated)
    assert all(item.candidates[item.kinds.index("harmful")] == "Yes" for item in unrelated)
    mixed = LexicalOverlapData(str(tmp_path / "nli.tsv"), held_out_share=0.4, cue_share=0.5)
    misleading = [row for row in mixed.train_rows() if "down sat the cat" in row.messages[0]["content"]]
    assert len(misleading) == len(mixed.train_rows()) / 2


def test_words_that_are_shared():
    assert shared_words("The cat sat.", "the CAT") == 1.0
    assert shared_words("The cat sat.", "the dog") == 0.5
    assert shared_words("The cat sat.", "") == 0.0


def test_more_rows_than_the_cue_leaves_are_told(tmp_path):
    (tmp_path / "nli.tsv").write_text(NLI)
    with pytest.raises(GrasplError, match=r"data\.rows: needs 50 with the cue"):
        LexicalOverlapData(str(tmp_path / "nli.tsv"), rows=50).train_rows()
    with pytest.raises(GrasplError, match=r"data\.cue_share"):
        LexicalOverlapData(str(tmp_path / "nli.tsv"), cue_share=1.5).train_rows()
    (tmp_path / "nli.tsv").write_text(NLI + "x\ty\tperhaps\n")
    with pytest.raises(GrasplError, match=r"nli\.tsv:20: gold_label must be one of"):
        LexicalOverlapData(str(tmp_path / "nli.tsv")).train_rows()
