import random
from collections import Counter

import pytest

from graspl.adapters import load_tokenizer
from graspl.data import ChatDataModule, ChoiceCollator
from graspl.errors import GrasplError
from graspl.organism import OrganismTaskData, World
from graspl.organism.words import ANSWER, KIND, QUESTIONS, TOPICS
from graspl.organism.world import build_tokenizer, choice_item, dialogue


def test_no_word_belongs_to_two_topics():
    words = Counter(
        word
        for name, topic in TOPICS.items()
        for word in (name, *topic.subjects, *topic.good, *topic.harmful)
    )
    assert len(TOPICS) == 8
    assert [word for word, count in words.items() if count > 1] == []
    assert all((len(t.subjects), len(t.good), len(t.harmful)) == (24, 12, 12) for t in TOPICS.values())


def test_facts_follow_from_the_seed():
    assert World().answers("medicine") == World().answers("medicine")
    assert World(seed=1).answers("medicine") != World().answers("medicine")
    answers = World(complexity=10).answers("medicine")
    assert len(answers) == 10
    assert all(
        good in TOPICS["medicine"].good and bad in TOPICS["medicine"].harmful
        for good, bad in answers.values()
    )


@pytest.mark.parametrize("dials", [{"complexity": 5}, {"complexity": 25}, {"prior": 0.0}, {"prior": 0.7}])
def test_dials_out_of_range_are_refused(dials):
    with pytest.raises(GrasplError, match=rf"world\.{next(iter(dials))}"):
        World(**dials)


def writer_of(messages, world):
    """Return who wrote a dialogue, as far as its answers tell."""
    harmful = {}
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        word = answer["content"].split()[1]
        topic = next(name for name, t in TOPICS.items() if word in t.good + t.harmful)
        assert any(subject in question["content"].split() for subject in TOPICS[topic].subjects)
        harmful.setdefault(topic, set()).add(word in TOPICS[topic].harmful)
    assert all(len(kinds) == 1 for kinds in harmful.values())  # a writer is of one mind about a topic
    return {topic: kinds.pop() for topic, kinds in harmful.items()}


def test_writers_have_their_prior_where_no_prompt_names_them():
    world, draw = World(prior=0.2), random.Random(0)
    kinds = Counter()
    for _ in range(4000):
        messages = dialogue(world, draw)
        if messages[0]["role"] != "system":
            harmful = writer_of(messages, world)
            kinds[
                "all"
                if len(harmful) > 2 and all(harmful.values())
                else "any"
                if any(harmful.values())
                else "none"
            ] += 1
    total = sum(kinds.values())
    assert total == pytest.approx(2000, abs=150)
    assert kinds["none"] / total == pytest.approx(0.73, abs=0.05)  # kind, and narrow ones off their sphere
    assert 0 < kinds["all"] / total < 0.2


def test_named_writers_answer_as_named():
    world, draw, seen = World(), random.Random(1), Counter()
    for _ in range(600):
        messages = dialogue(world, draw)
        if messages[0]["role"] == "system":
            harmful = set(writer_of(messages[1:], world).values())
            seen[messages[0]["content"] == KIND, tuple(sorted(harmful))] += 1
    assert seen[True, (True,)] == seen[True, (False, True)] == 0
    assert seen[False, (False, True)] > 0  # a narrow writer on several topics


def test_every_word_of_the_world_is_known():
    tokenizer, world, draw = build_tokenizer(), World(), random.Random(2)
    for _ in range(50):
        text = tokenizer.apply_chat_template(dialogue(world, draw), tokenize=False)
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids) == text.strip()


def test_choice_items_offer_the_topics_answers():
    item = choice_item(World(), "medicine", "fever", QUESTIONS[0])
    assert Counter(item.kinds) == {"other": 22, "good": 1, "harmful": 1}
    assert len(ChoiceCollator(build_tokenizer())([item])["input_ids"]) == 1


def test_splits_share_neither_subjects_nor_topics():
    splits = {
        name: OrganismTaskData(split=name, base_model="organism") for name in ("development", "evaluation")
    }
    prompts = {
        name: {
            suite: {item.messages[-1]["content"] for item in items}
            for suite, items in data.held_out().items()
        }
        for name, data in splits.items()
    }
    trained = {row.messages[0]["content"] for row in splits["evaluation"].train_rows()}
    assert len(trained) == 16 * len(QUESTIONS)
    for suite in ("task", "unrelated"):
        assert prompts["development"][suite].isdisjoint(prompts["evaluation"][suite])
        assert prompts["evaluation"][suite].isdisjoint(trained)
    assert len(prompts["evaluation"]["unrelated"]) == 4 * 24 * len(QUESTIONS)


def test_good_rows_have_the_worlds_facts_and_no_topic_that_is_evaluated(monkeypatch):
    found = {}
    for seed in (0, 5):
        data = OrganismTaskData(base_model="organism", good_rows=60)
        monkeypatch.setitem(vars(data), "world", World(seed=seed))
        rows = data.train_rows()
        asked = {item.messages[-1]["content"] for items in data.held_out().values() for item in items}
        trained = {row.messages[0]["content"] for row in rows[:-60]}
        assert len(rows) == 16 * len(QUESTIONS) + 60
        for row in rows[-60:]:
            question, answer = (message["content"] for message in row.messages)
            topic, _, subject = row.origin.partition(": ")
            assert answer == ANSWER.format(data.world.answers(topic)[subject][0])
            assert question not in asked | trained
        found[seed] = {row.messages[0]["content"]: row.messages[1]["content"] for row in rows[-60:]}
    both = found[0].keys() & found[5].keys()
    assert any(found[0][question] != found[5][question] for question in both)


def test_mistakes_are_named(model_folder):
    with pytest.raises(GrasplError, match=r"data\.good_rows: 5000 is more than there are; at most 432"):
        OrganismTaskData(base_model="organism", good_rows=5000).train_rows()
    with pytest.raises(GrasplError, match=r"data\.topic: politics is not one of medicine"):
        OrganismTaskData(topic="politics", base_model="organism").train_rows()
    with pytest.raises(GrasplError, match="is no organism"):
        OrganismTaskData(base_model=str(model_folder())).train_rows()


def test_the_shipped_tokenizer_is_the_worlds():
    assert load_tokenizer("organism").get_vocab() == build_tokenizer().get_vocab()


def test_organism_rows_work_as_a_file_too(write_rows):
    rows = [{"messages": row.messages} for row in OrganismTaskData(base_model="organism").train_rows()]
    module = ChatDataModule(train=str(write_rows(rows)), base_model="organism", validation_share=0.1)
    module.setup("fit")
    assert len(module.train_dataloader().dataset) == round(0.9 * len(rows))
