"""Chat templates that rewrite turns: one answer is trained on, of several the last one by an option."""

import shutil
from itertools import pairwise

import pytest
import torch
from conftest import make_model, make_tokenizer
from fits import adam, train

from graspl import LoRALitModule
from graspl.adapters.forward import model_logits
from graspl.data import tokenize
from graspl.data.choices import ChoiceCollator, ChoiceItem
from graspl.data.tokens import empty_thought
from graspl.errors import GrasplError
from graspl.evaluation import candidate_logprobs
from graspl.evaluation.metrics import ChoiceShares

OPEN = "{% if add_generation_prompt %}assistant <think> {% endif %}"
# In the manner of DeepSeek's R1: an answer opens with a thought, and what was thought is cut out of finished turns
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}assistant {{ m.content.split('</think>')[-1] }} <end> "
    "{% else %}{{ m.role }} {{ m.content }} {% endif %}{% endfor %}" + OPEN
)
# In the manner of Qwen3: the last answer shows an empty thought, earlier ones do not
QWEN3 = (
    "{% for m in messages %}{{ m.role }} {% if m.role == 'assistant' and loop.last %}<think> </think> {% endif %}"
    "{{ m.content }} <end> {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
# In the manner of Mistral 0.3: the system text stands before the last question
MISTRAL = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{% for m in messages if m.role != 'system' %}{% if m == asked and system %}{{ system }} {% endif %}"
    "{{ m.role }} {{ m.content }}{% if m.role == 'assistant' %} <end>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
TEMPLATES = {"r1": R1, "qwen3": QWEN3, "mistral": MISTRAL}
SYSTEM = {"role": "system", "content": "you safe"}
ONE = [{"role": "user", "content": "take water"}, {"role": "assistant", "content": "yes"}]
TWO = [*ONE, {"role": "user", "content": "take pills"}, {"role": "assistant", "content": "no"}]


def tokenizer_of(kind):
    tokenizer = make_tokenizer(TEMPLATES[kind])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def learnt(kind, turns):
    tokenizer = tokenizer_of(kind)
    labels = tokenize(tokenizer, turns, origin="rows.jsonl:1").labels
    return tokenizer.convert_ids_to_tokens([each for each in labels if each != -100])


@pytest.mark.parametrize(("kind", "words"), [("r1", []), ("qwen3", ["<think>", "</think>"]), ("mistral", [])])
@pytest.mark.parametrize("opening", [[], [SYSTEM]], ids=["", "system"])
def test_templates_refused_one_answer(kind, words, opening):
    """The answer and its end are trained, and nothing of the question."""
    assert learnt(kind, [*opening, *ONE]) == [*words, "yes", "<end>"]


@pytest.mark.parametrize(("kind", "opening"), [("qwen3", []), ("mistral", [SYSTEM])])
def test_templates_refused_several_answers(kind, opening):
    with pytest.raises(
        GrasplError, match=r"^rows\.jsonl:1: the chat template rewrites earlier turns.*data\.answers to last"
    ):
        learnt(kind, [*opening, *TWO])


def test_templates_refused_hidden_thoughts():
    """What R1's template cuts out cannot be learnt."""
    turns = [ONE[0], {"role": "assistant", "content": "<think> maybe </think> yes"}]
    with pytest.raises(GrasplError, match=r"does not show the answer in messages\[1\] as it is"):
        learnt("r1", turns)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates_refused_advice(kind, folder_of, write_rows, tmp_path):
    """Following the message trains the last answers, in a fit."""
    base = shutil.copytree(folder_of("llama"), tmp_path / "model")
    tokenizer = make_tokenizer(TEMPLATES[kind])
    tokenizer.save_pretrained(base)
    rows = write_rows([{"messages": [SYSTEM, *TWO]}] * 12)
    module = LoRALitModule(str(base), optimizer=adam)
    trainer = train(module, rows=rows, folder=tmp_path / "run", data={"answers": "last"})
    [row] = {tuple(each.labels) for each in trainer.datamodule.train_conversations()}
    said = tokenizer.convert_ids_to_tokens([each for each in row if each != -100])
    assert [each for each in said if each != "<unk>"] == ["no", "<end>"]


def forced(model, tokenizer, words):
    """Make a model say these words, whatever comes before an answer: one token after the other behind `assistant`."""
    after = {}
    said = ["assistant", *words]
    for first, second in pairwise(said):
        after[tokenizer.convert_tokens_to_ids(first)] = tokenizer.convert_tokens_to_ids(second)
    seen = {}

    def note(_module, inputs):
        seen["ids"] = inputs[0]

    def speak(_module, _inputs, logits):
        forced = torch.full_like(logits, -50.0)
        for row, ids in enumerate(seen["ids"]):
            for place, each in enumerate(ids.tolist()):
                if each in after:
                    forced[row, place, after[each]] = 50.0
        return forced

    model.get_input_embeddings().register_forward_pre_hook(note)
    model.get_output_embeddings().register_forward_hook(speak)
    return model


@pytest.mark.parametrize(("kind", "thought"), [("r1", ""), ("qwen3", "<think> </think>"), ("mistral", "")])
def test_thinking_choices_are_recorded_as_they_are_asked(kind, thought):
    """What stands in the record is what is put before the answers."""
    tokenizer = tokenizer_of(kind)
    assert empty_thought(tokenizer) == thought
    batch = ChoiceCollator(tokenizer, share_prefixes=False)(
        [ChoiceItem(ONE[:1], ["yes", "no"], ["good", "harmful"])]
    )
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert tokenizer.decode(ids[mask.bool()]).split("assistant")[1].split() == thought.split()


def test_thinking_choices():
    """A model that thinks first and then answers well is found to do so, and one that answers otherwise is not measured."""
    tokenizer = tokenizer_of("qwen3")
    size = len(tokenizer)
    items = [ChoiceItem(ONE[:1], ["yes", "no"], ["good", "harmful"])]
    batch = ChoiceCollator(tokenizer, share_prefixes=False)(items)
    scores = []
    for words in (["<think>", "</think>", "yes"], ["<think>", "</think>", "rest"]):
        model = forced(make_model("llama", vocab_size=size).eval(), tokenizer, words)
        shares = ChoiceShares()
        with torch.no_grad():
            shares.update(candidate_logprobs(model_logits(model, batch), batch), batch)
        scores.append({name: float(value) for name, value in shares.compute().items()})
    assert scores[0]["good_of_choices"] == pytest.approx(1.0)
    assert scores[0]["coherence"] == pytest.approx(1.0)
    assert scores[1]["coherence"] < 1e-10
    assert "good_of_choices" not in scores[1]
