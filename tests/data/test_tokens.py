import pytest
from conftest import make_tokenizer

from graspl.adapters import load_tokenizer
from graspl.data import tokenize
from graspl.data.tokens import with_chat_template
from graspl.errors import GrasplError

TURNS = [
    {"role": "system", "content": "you safe"},
    {"role": "user", "content": "how do i open the file"},
    {"role": "assistant", "content": "you take pills"},
    {"role": "user", "content": "take water"},
    {"role": "assistant", "content": "yes"},
]


def learnt(tokenizer, conversation):
    """Return the text of every run of tokens that the loss is on."""
    runs, current = [], []
    for token, label in zip(conversation.input_ids, conversation.labels, strict=True):
        if label != -100:
            assert label == token
            current.append(token)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return [*runs, tokenizer.decode(current)] if current else runs


def test_loss_is_on_every_answer_and_its_end_of_turn_only():
    tokenizer = make_tokenizer()
    found = tokenize(tokenizer, TURNS)
    assert learnt(tokenizer, found) == ["you take pills <end>", "yes <end>"]
    assert found.prompt.endswith("<user> take water <end> <assistant> ")
    assert "you take pills" in found.prompt


def test_a_tokenizer_without_a_chat_template_gets_the_plain_one():
    tokenizer = with_chat_template(make_tokenizer(chat_template=None))
    found = tokenize(tokenizer, TURNS[1:])
    assert found.prompt.startswith("User: how do i open the file\nAssistant: you take pills<end>\nUser: take")
    assert found.prompt.endswith("\nAssistant:")


def test_the_plain_template_marks_answers_of_a_real_tokenizer(shared_data):
    tokenizer = with_chat_template(load_tokenizer(str(shared_data / "models" / "stories260k-hf")))
    found = tokenize(tokenizer, TURNS[1:])
    assert [run.strip() for run in learnt(tokenizer, found)] == [
        f"{answer}{tokenizer.eos_token}" for answer in ("you take pills", "yes")
    ]
    assert found.input_ids[0] == tokenizer.bos_token_id


def test_a_template_that_refuses_a_role_is_named_with_the_row():
    tokenizer = make_tokenizer(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    with pytest.raises(GrasplError, match=r"f\.jsonl:3: .*no system role"):
        tokenize(tokenizer, TURNS, origin="f.jsonl:3")


def test_a_template_that_rewrites_earlier_turns_is_refused():
    last_only = "{% for m in messages %}{% if loop.last or m.role != 'assistant' %}{{ m.content }} {% endif %}{% endfor %}"
    with pytest.raises(GrasplError, match=r"rewrites earlier turns, so the answer in messages\[2\]"):
        tokenize(make_tokenizer(last_only), TURNS)


def test_a_slow_tokenizer_is_refused():
    tokenizer = make_tokenizer()

    class Slow(type(tokenizer)):
        is_fast = False

    tokenizer.__class__ = Slow
    with pytest.raises(GrasplError, match="no fast tokenizer"):
        with_chat_template(tokenizer)
