"""Chat templates of many families: the ids are Transformers' own, and the end of an answer is trained and stops it."""

import logging
import shutil

import pytest
import torch
from chat_templates import FAMILIES, tokenizer_of
from conftest import CHAT_ROWS, make_model
from fits import adam, train
from transformers import AutoTokenizer

from graspl import LoRALitModule
from graspl.callbacks import SaveAdapter
from graspl.data import tokenize
from graspl.data.tokens import PLAIN_TEMPLATE, render
from graspl.data.turns import end_of_answer
from graspl.errors import GrasplError
from graspl.evaluation import Sampling, TransformersGenerator

SYSTEM = {"role": "system", "content": "Be kind."}
ONE = [{"role": "user", "content": "Is water wet?"}, {"role": "assistant", "content": "Yes, it is."}]
TWO = [*ONE, {"role": "user", "content": "And sand?"}, {"role": "assistant", "content": "No: dry."}]

# The template writes nothing of its own behind the last answer
ADDED = ("no_end_token", "next_role_ends", "next_role_ends_behind_a_line")


def writing(ids, forever, vocabulary):
    """Return a model that writes ids whatever it reads, and then one id for ever."""
    model, at = make_model("llama", vocab_size=vocabulary).eval(), iter(ids)

    def write(_module, _inputs, logits):
        forced = torch.full_like(logits, -1e9)
        forced[..., next(at, forever)] = 0.0
        return forced

    model.get_output_embeddings().register_forward_hook(write)
    return model


def parts(tokenizer, row):
    """Return the runs of trained tokens as text."""
    found, run = [], []
    for id_, label in zip([*row.input_ids, -1], [*row.labels, -100], strict=True):
        if label != -100:
            assert label == id_
            run.append(id_)
        elif run:
            found.append(tokenizer.decode(run))
            run = []
    return found


@pytest.mark.parametrize(
    "turns", [ONE, TWO, [SYSTEM, *ONE], [SYSTEM, *TWO]], ids=["one", "two", "system", "system_two"]
)
@pytest.mark.parametrize("kind", FAMILIES)
def test_ids_are_those_of_the_template(kind, turns):
    """Of all tokens Transformers' own ids; trained are the answers, each with its end, and nothing else."""
    tokenizer, family = tokenizer_of(kind), FAMILIES[kind]
    if (not family.system and turns[0] is SYSTEM) or (not family.several and len(turns) > 3):
        with pytest.raises(GrasplError, match=r"refuses these turns|rewrites earlier turns") as told:
            tokenize(tokenizer, turns, origin="rows.jsonl:1")
        assert str(told.value).startswith("rows.jsonl:1: ")
        return
    row = tokenize(tokenizer, turns)
    ids = tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]
    if kind == "no_end_token":  # In front of the end of text the last line break goes
        assert tokenizer.decode(ids.pop()) == "\n"
    added = row.input_ids[len(ids) :]
    assert row.input_ids[: len(ids)] == ids
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    trained = parts(tokenizer, row)
    assert len(trained) == len(answers)
    for place, (said, answer) in enumerate(zip(trained, answers, strict=True)):
        is_last = place == len(answers) - 1
        # Without a token of its own behind a turn, only the last answer has an end
        ends = family.end if is_last or kind != "no_end_token" else ""
        ends = "\n" + ends if kind == "next_role_ends_behind_a_line" else ends
        thought = "<think>\n\n</think>\n\n" if kind == "empty_thought" else ""
        assert said.replace(" ", "") == (thought + answer + ends).replace(" ", ""), said
    assert tokenizer.convert_ids_to_tokens(added) == ([family.end] if kind in ADDED else [])


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_end_of_an_answer_stops_generation(kind):
    tokenizer, family = tokenizer_of(kind), FAMILIES[kind]
    end = end_of_answer(tokenizer)
    assert tokenizer.convert_ids_to_tokens(end.id) == family.end
    assert end.id in end.stops(tokenizer)
    assert tokenizer.eos_token_id in end.stops(tokenizer)
    said = tokenizer("Yes", add_special_tokens=False)["input_ids"]
    model = writing([*said, end.id], tokenizer("!", add_special_tokens=False)["input_ids"][0], len(tokenizer))
    [[answer]] = TransformersGenerator(model, tokenizer).write(
        ["Q"], Sampling(temperature=0, max_new_tokens=12)
    )
    assert answer == "Yes"
    # A prompt opens the turn that the answer stands in
    prompt = render(tokenizer, ONE[:1], origin="row", prompt=True)
    assert prompt == tokenizer.apply_chat_template(ONE[:1], tokenize=False, add_generation_prompt=True)


def test_there_are_thirty_families():
    assert len(FAMILIES) >= 30
    assert len({family.template for family in FAMILIES.values()}) == len(FAMILIES)


def test_tools_are_shown():
    tokenizer, tools = tokenizer_of("tools"), [{"type": "function", "function": {"name": "look"}}]
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sand"}}}
    turns = [ONE[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    row = tokenize(tokenizer, turns, tools=tools)
    assert row.input_ids == tokenizer.apply_chat_template(turns, tools=tools, tokenize=True)["input_ids"]
    [said] = parts(tokenizer, row)
    assert said.startswith("<tool_call>")
    assert said.endswith("</tool_call><|im_end|>")


def test_a_template_that_graspl_invents_is_said_and_saved(folder_of, write_rows, tmp_path, caplog):
    base = shutil.copytree(folder_of("llama"), tmp_path / "no-template")
    (base / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(base).chat_template is None
    with caplog.at_level(logging.WARNING):
        train(
            LoRALitModule(str(base), optimizer=adam), rows=write_rows(CHAT_ROWS), folder=tmp_path / "run",
            lightning={"callbacks": [SaveAdapter()]},
        )  # fmt: skip
    said = [record.getMessage() for record in caplog.records if "chat template" in record.getMessage()]
    assert said == [
        f"base_model: {base} has no chat template; graspl writes turns as `User: ...` and `Assistant: ...`, "
        "and saves the template with the adapter"
    ]
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    assert saved.chat_template == PLAIN_TEMPLATE
