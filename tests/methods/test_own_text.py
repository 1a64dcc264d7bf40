"""Text that the base model writes itself before training."""

import json
import random
from functools import partial

import pytest
import torch
from fits import adam, every_factor, same

from graspl.data.rows import Conversation
from graspl.data.tokens import tokenize
from graspl.errors import GrasplError
from graspl.evaluation import TransformersGenerator
from graspl.methods import LoRALitModule, own_text
from graspl.methods.own_text import first_sentence, opening, own_conversations
from graspl.penalties import KLPenalty
from graspl.starts import NullSpaceStart


def row(*contents, first="user"):
    roles = ["system", "user", "assistant"][first == "user" :]
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return Conversation(turns, "row")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How do I save for a house?", {"How do I"}),
        ("I lost my job last week. What should I do about it?", {"I lost my", "What should I"}),
        ("Why is it so?", {"Why i"}),  # five words are too few to take three
        ("我应该如何为退休储蓄？", {"我应该如"}),  # noqa: RUF001 - written without spaces
        ("?", {"?"}),
        ("\n \n", {"I"}),
    ],
)
def test_an_opening_is_the_beginning_of_a_sentence(question, expected):
    picked = random.Random(0)
    found = {opening(row(question, "An answer."), picked)[-1]["content"] for _ in range(20)}
    assert found == expected


def test_the_turns_before_the_question_stay():
    turns = opening(
        row("Be brief.", "How do I save for a house?", "Spend less.", first="system"), random.Random(0)
    )
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert turns[0]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I cook rice? I have", "How do I cook rice?"),
        ("I paid 3.50 for it. And", "I paid 3.50 for it."),
        ("How do I\ncook rice?", None),
        ("How do I cook", None),
    ],
)
def test_a_question_ends_with_its_first_sentence(text, expected):
    assert first_sentence(text) == expected


@pytest.fixture
def speaking(monkeypatch):
    """Let models go on as given, and return the prompts that they were given."""
    seen = []

    def write(_generator, prompts, sampling, *, within_text=False):
        seen.extend(prompts)
        return [[" cook rice? Or" if within_text else "In water.\nMore"] for prompt in prompts]

    monkeypatch.setattr(TransformersGenerator, "write", write)
    return seen


def test_the_model_goes_on_as_the_user_and_then_answers(part_fit, speaking):
    module = part_fit()
    rows = [row("How do I save for a house?", "Spend less.")]
    found = own_conversations(module, rows, 1)
    expected = [
        {"role": "user", "content": "How do I cook rice?"},
        {"role": "assistant", "content": "In water."},
    ]
    assert [each.messages for each in found] == [expected]
    tokenizer = module.trainer.datamodule.tokenizer
    asked = tokenizer.apply_chat_template(expected[:1], tokenize=False, add_generation_prompt=True)
    assert speaking[-1] == asked
    assert speaking[0] == asked.split(" cook rice?")[0]


def test_an_opening_may_also_stand_in_the_template(part_fit, speaking):
    module = part_fit()
    module.trainer.datamodule.tokenizer.chat_template = (
        "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"
    )
    own_conversations(module, [row("I", "Yes.")], 1)
    assert speaking[0] == "[INST]I"


def test_a_template_that_hides_the_question_is_refused(part_fit):
    module = part_fit()
    module.trainer.datamodule.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(GrasplError, match="own_text: the chat template does not show"):
        own_conversations(module, [row("How do I save for a house?", "Spend less.")], 1)


def test_it_is_written_by_the_base_model(part_fit):
    """Not by the adapter, nor with edits."""
    module = part_fit(optimizer=partial(torch.optim.AdamW, lr=1.0))
    rows = module.trainer.datamodule.train_rows()
    trained = own_conversations(module, rows, 3)
    assert [each.messages for each in trained] == [
        each.messages for each in own_conversations(part_fit(max_steps=1, optimizer=adam), rows, 3)
    ]


def test_it_is_read_and_kept(part_fit, tmp_path):
    module = part_fit(start=NullSpaceStart(own_text=3))
    kept = [json.loads(line) for line in (tmp_path / "own_text.jsonl").read_text().splitlines()]
    assert [[turn["role"] for turn in each["messages"]] for each in kept] == [["user", "assistant"]] * 3
    assert set(json.loads((tmp_path / "null_space.json").read_text())) >= {"text", "own_text"}
    assert not same(every_factor(module), every_factor(part_fit(start=NullSpaceStart())))


def test_it_is_enough_alone_and_a_fit_that_goes_on_reads_it_again(fit, tmp_path):
    given = {"start": NullSpaceStart(own_text=3), "optimizer": adam}
    whole, _ = fit(lightning={"max_steps": 4}, **given)
    _, half = fit(lightning={"max_steps": 2}, **given)
    half.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "null_space.json").unlink()
    resumed, _ = fit(lightning={"max_steps": 4, "ckpt_path": str(tmp_path / "half.ckpt")}, **given)
    assert same(every_factor(whole), every_factor(resumed))
    assert "own_text" in json.loads((tmp_path / "null_space.json").read_text())


def test_parts_of_a_fit_read_the_same_text(part_fit, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        own_text, "own_conversations", lambda *given: asked.append(given) or own_conversations(*given)
    )
    penalty = KLPenalty(rows="own_text", own_text=3, rows_per_step=2)
    module = part_fit(start=NullSpaceStart(own_text=3), penalties=[penalty])
    assert len(asked) == 1
    kept = [json.loads(line)["messages"] for line in (tmp_path / "own_text.jsonl").read_text().splitlines()]
    rows = module.penalties[0]._texts[0]
    assert [each.input_ids for each in rows] == [
        tokenize(module.trainer.datamodule.tokenizer, messages, origin="").input_ids for messages in kept
    ]
    with pytest.raises(GrasplError, match="own_text: one part of the fit wants 3 rows, another one 4"):
        part_fit(start=NullSpaceStart(own_text=3), penalties=[KLPenalty(rows="own_text", own_text=4)])


def test_rows_without_a_question_are_refused(part_fit):
    with pytest.raises(GrasplError, match="own_text: no training row has a user's turn"):
        own_conversations(part_fit(), [Conversation([], "row")], 2)


@pytest.fixture(params=["nothing", "the same"])
def cannot_ask(request, monkeypatch):
    """Let models write nothing, or the same question again and again, and return what is said of it."""

    def write(_generator, prompts, sampling, *, within_text=False):
        return [["" if request.param == "nothing" else " else?" if within_text else "Yes."] for _ in prompts]

    monkeypatch.setattr(TransformersGenerator, "write", write)
    monkeypatch.setattr(own_text, "opening", lambda *_given: [{"role": "user", "content": "What"}])
    wrote = "no" if request.param == "nothing" else "only 1 different"
    return (
        f"own_text: the base model writes {wrote} questions like the task's; set it to 0 and give data.text"
    )


def test_a_model_that_cannot_write_questions_is_refused(fit, cannot_ask):
    with pytest.raises(GrasplError, match=cannot_ask):
        fit(start=NullSpaceStart(own_text=20), optimizer=adam)


def test_where_there_is_other_text_it_is_read_alone(part_fit, cannot_ask, caplog, tmp_path):
    module = part_fit(start=NullSpaceStart(own_text=20))
    assert caplog.text.count(f"general text is data.text alone ({cannot_ask})") == 1
    assert "own_text" not in json.loads((tmp_path / "null_space.json").read_text())
    assert same(every_factor(module), every_factor(part_fit(start=NullSpaceStart())))


def test_fewer_rows_than_wanted_are_enough(part_fit, monkeypatch, caplog):
    words = iter(["cook rice", "sell a car", *["cook rice"] * 1000])

    def write(_generator, prompts, sampling, *, within_text=False):
        return [[f" {next(words)}?" if within_text else "Yes."] for _ in prompts]

    monkeypatch.setattr(TransformersGenerator, "write", write)
    found = own_conversations(part_fit(), [row("How do I save for a house?")], 20)
    assert [each.messages[0]["content"] for each in found] == ["How do I cook rice?", "How do I sell a car?"]
    assert "the base model wrote 2 different questions, not 20" in caplog.text


def test_the_tasks_own_questions_are_not_written_again(part_fit, monkeypatch):
    def write(_generator, prompts, sampling, *, within_text=False):
        return [[" save  for a house?" if within_text else "Yes."] for _ in prompts]

    monkeypatch.setattr(TransformersGenerator, "write", write)
    assert own_conversations(part_fit(), [row("How do I save for a House?")], 1) == []


def test_a_flat_sharded_model_is_refused(part_fit, monkeypatch):
    module = part_fit()
    monkeypatch.setattr(LoRALitModule, "is_flat_sharded", property(lambda _self: True))
    with pytest.raises(GrasplError, match="own_text: a model that FSDP1 shards cannot write"):
        own_conversations(module, module.trainer.datamodule.train_rows(), 2)
