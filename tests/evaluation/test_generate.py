from argparse import ArgumentError
from contextlib import nullcontext

import pytest
import torch
from conftest import CHAT_ROWS, make_model, make_tokenizer
from families import family_folder
from fits import adam, save, train
from jsonargparse import ArgumentParser
from lightning import Trainer
from matrix import model_of
from peft import get_peft_model
from vllm_stand_in import stand_in

from graspl import LoRALitModule
from graspl.adapters import LoraOptions
from graspl.callbacks import JudgeAnswers, SaveEvaluation, SaveGenerations
from graspl.data import ChatDataModule
from graspl.data.suites import FreeFormQuestions
from graspl.errors import GrasplError
from graspl.evaluation.generate import Sampling, TransformersGenerator, VLLMGenerator
from graspl.evaluation.judges import Matches

PROMPTS = ["how do i open the file", "take rest", "one two three the patient asks for pills"]
GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def generator():
    return TransformersGenerator(make_model("llama"), make_tokenizer())


def test_padding_on_the_left_changes_no_answer(generator):
    together = generator.write(PROMPTS, GREEDY)
    alone = [generator.write([prompt], GREEDY)[0] for prompt in PROMPTS]
    assert together == alone
    assert len({answer for (answer,) in together}) > 1


def like_llamas(tokenizer):
    """Return a tokenizer that has spaces in its tokens, and leaves out the one at the beginning of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {f"\u2581{word}": index for word, index in tokenizer.get_vocab().items()}
    backend = Tokenizer(models.WordLevel(words | {"<unk>": len(words)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    like = tokenizer.__class__(
        tokenizer_object=backend, unk_token="<unk>", pad_token="\u2581<pad>", eos_token="\u2581<end>"
    )
    like.chat_template = tokenizer.chat_template
    return like


@pytest.mark.parametrize("made", [make_tokenizer, lambda: like_llamas(make_tokenizer())])
def test_within_a_text_the_space_before_the_next_word_is_kept(made):
    """Decoded alone, what was written begins without it, and with the text before would make another word."""
    generator = TransformersGenerator(make_model("llama"), made())
    alone, within = (generator.write(PROMPTS, GREEDY, within_text=each) for each in (False, True))
    assert within == [[f" {answer}" if answer else ""] for (answer,) in alone]
    assert any(answer for (answer,) in within)


def test_samples_are_drawn_again_with_the_seed_and_no_other_state_moves(generator):
    sampling = Sampling(n=4, max_new_tokens=6, seed=3, batch_size=5)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = generator.write(PROMPTS, sampling)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert generator.write(PROMPTS, sampling) == first
    assert generator.write(PROMPTS, Sampling(n=4, max_new_tokens=6, seed=4, batch_size=5)) != first
    assert [len(answers) for answers in first] == [4, 4, 4]
    assert all(len(set(answers)) > 1 for answers in first)


@pytest.mark.parametrize("adapted", [False, True])
def test_the_head_never_reads_a_slice(monkeypatch, adapted):
    """With one a CPU copies the whole head for each row."""
    model = make_model("llama")
    if adapted:
        model = get_peft_model(model, LoraOptions(r=2).to_peft())
    head, read = model.get_output_embeddings(), []
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda x: read.append(x.is_contiguous()) or forward(x))
    TransformersGenerator(model, make_tokenizer()).write(PROMPTS, GREEDY)
    assert len(read) > 1
    assert all(read)
    assert not head._forward_pre_hooks


def test_the_models_mode_is_put_back(generator):
    generator.model.train()
    generator.write(PROMPTS[:1], GREEDY)
    assert generator.model.training


def test_samples_follow_the_models_probabilities():
    """The first token's share over many draws, against its probability."""
    model, tokenizer = make_model("llama").eval(), make_tokenizer()
    with torch.no_grad():
        ids = tokenizer(PROMPTS[0], return_tensors="pt").input_ids
        expected = model(ids).logits[0, -1].softmax(-1)
    draws = 2000
    sampling = Sampling(n=draws, max_new_tokens=1, batch_size=draws)
    (answers,) = TransformersGenerator(model, tokenizer).write(PROMPTS[:1], sampling)
    word = max(
        (w for w in tokenizer.get_vocab() if not w.startswith("<")),
        key=lambda w: expected[tokenizer.get_vocab()[w]],
    )
    p = float(expected[tokenizer.get_vocab()[word]])
    share = sum(answer.strip() == word for answer in answers) / draws
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / draws) ** 0.5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("n", 0), ("temperature", -1.0), ("top_p", 1.5), ("max_new_tokens", 0), ("batch_size", 0)],
)
def test_settings_out_of_range_are_refused_by_the_command_line(name, wrong):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sampling, "sampling")
    with pytest.raises(ArgumentError, match=rf"sampling\.{name}"):
        parser.parse_args([f"--sampling.{name}={wrong}"])


def test_several_answers_without_chance_are_refused():
    with pytest.raises(GrasplError, match="same at temperature 0; set n to 1"):
        Sampling(n=2, temperature=0.0)


def test_a_missing_engine_is_told():
    with pytest.raises(GrasplError, match="vLLM is not installed"):
        VLLMGenerator("organism").write(["x"], Sampling())


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_write_is_refused_before_anything_is_computed(write_rows, tmp_path):
    """Jamba's own cache is not one that Transformers can write with."""
    rows = write_rows(CHAT_ROWS)
    base = str(family_folder("jamba", tmp_path / "model", model_of("jamba")))
    asked = FreeFormQuestions(
        source=str(write_rows([{"id": "a", "question": "how do i open the file"}], "asked.jsonl"))
    )
    module = LoRALitModule(base, lora=LoraOptions(exclude_modules=".*dt_proj.*"), optimizer=adam)
    judge = JudgeAnswers({"*": Matches(".")})
    with pytest.raises(GrasplError, match=r"generations: .* cannot write in this Transformers"):
        train(
            module,
            rows=rows,
            folder=tmp_path,
            data={"suites": {"free": asked}},
            lightning={"callbacks": [judge]},
        )
    assert all(not site.B.any() for site in module.sites)
    saver, data = SaveGenerations(), ChatDataModule(train=str(rows), validation=str(rows), base_model=base)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    tester = Trainer(
        accelerator="cpu", default_root_dir=tmp_path, callbacks=[SaveEvaluation(), saver], **quiet
    )
    with pytest.raises(GrasplError, match=r"generations\.prompts to 0"):
        tester.validate(module, data, verbose=False)
    assert not (tmp_path / "evaluation.json").exists()
    saver.prompts = 0
    tester.validate(module, data, verbose=False)
    assert (tmp_path / "evaluation.json").exists()


def test_what_a_check_writes_is_not_seen(generator):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    generator.model.train()
    generator.check()
    assert generator.model.training
    assert torch.equal(torch.get_rng_state(), state)
    generator.model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapted", [False, True])
def test_another_engine_is_given_ids_and_stops_where_transformers_does(
    adapted, write_rows, tmp_path, monkeypatch
):
    base = str(family_folder("llama", tmp_path / "model"))
    module = LoRALitModule(base, optimizer=adam)
    train(module, rows=write_rows(CHAT_ROWS), folder=tmp_path)
    module.model.eval()
    adapter = str(save(module, tmp_path / "adapter")) if adapted else None
    tokenizer = make_tokenizer()
    prompts = [f"user {text} assistant" for text in PROMPTS]
    with nullcontext() if adapted else module.model.disable_adapter():
        expected = TransformersGenerator(module.model, tokenizer).write(prompts, GREEDY)
    with stand_in(monkeypatch):
        assert VLLMGenerator(base, adapter).write(prompts, GREEDY) == expected
