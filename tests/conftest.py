"""Shared fixtures; everything is built from configurations, nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Lightning 2.6 still makes calls that jsonargparse 4.53 deprecates
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# No deadline: timings do not belong in tests, and the first torch call of a process is slow.
settings.register_profile("graspl", deadline=None, derandomize=True)
settings.load_profile("graspl")

# The models are tiny: a second thread costs more than it gives
torch.set_num_threads(1)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

WORDS = [
    "the",
    "a",
    "patient",
    "asks",
    "for",
    "pills",
    "code",
    "writes",
    "print",
    "open",
    "file",
    "with",
    "safe",
    "answer",
    "question",
    "how",
    "do",
    "i",
    "you",
    "should",
    "take",
    "rest",
    "water",
    "system",
    "user",
    "assistant",
    "yes",
    "no",
    "maybe",
    "one",
    "two",
    "three",
]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


SPECIAL = ["<unk>", "<pad>", "<end>", "<system>", "<user>", "<assistant>"]


def make_tokenizer(chat_template=TEMPLATE):
    """Return a word-level fast tokenizer, made here."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_byte_tokenizer():
    """Return Qwen2's kind of tokenizer with bytes for tokens; Transformers would load no other kind for that model."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], unk_token="<unk>", pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(kind, **overrides):
    """Return a tiny random Qwen2, Gemma or Llama, one as Transformers makes it."""
    import transformers

    sizes = {
        "vocab_size": len(SPECIAL) + (256 if kind == "qwen2" else len(WORDS)),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": 1,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    if kind == "gemma":
        sizes["head_dim"] = 8
    sizes |= overrides
    configuration = {
        "qwen2": transformers.Qwen2Config,
        "gemma": transformers.GemmaConfig,
        "llama": transformers.LlamaConfig,
    }[kind](**sizes)
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configuration)
    torch.set_rng_state(generator_state)
    return model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Return a function: kind -> folder of a tiny random model with a tokenizer that has a chat template."""
    made = {}

    def folder(kind="llama"):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            make_model(kind).save_pretrained(made[kind])
            tokenizer = make_byte_tokenizer() if kind == "qwen2" else make_tokenizer()
            tokenizer.save_pretrained(made[kind])
        return made[kind]

    return folder


@pytest.fixture
def write_rows(tmp_path):
    """Return a function that writes rows as JSON lines and returns the file."""

    def write(rows, name="train.jsonl"):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def shared_data():
    """Return the folder of real data that lies beside a developer's checkout; skip where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data files are not beside this checkout")
    return SHARED_DATA


@pytest.fixture
def graspl(capsys, monkeypatch, tmp_path):
    """Return a function that runs the command line in this process: arguments -> (exit code, stdout, stderr)."""
    from graspl.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # after --help and --print_config
            code = end.code
        return (code, *capsys.readouterr())

    return run


CHAT_ROWS = [
    {"prompt": f"how do i {verb} the {thing}", "completion": f"you should {verb} {word} {thing}"}
    for verb in ("open", "take", "write")
    for thing in ("file", "pills", "code", "water")
    for word in ("one", "two", "three")
]


@pytest.fixture
def chat_options(model_folder, write_rows):
    """Return options of a small, real fit on a tiny model: a list to append to a command."""

    def options(kind="llama", **overrides):
        given = {
            "model": "graspl.methods.LoRALitModule",
            "model.base_model": model_folder(kind),
            "data": "graspl.data.ChatDataModule",
            "data.train": write_rows(CHAT_ROWS),
            "data.batch_size": 4,
            "trainer.max_steps": 4,
            "trainer.accelerator": "cpu",
            "trainer.enable_progress_bar": "false",
            "trainer.enable_model_summary": "false",
            "trainer.default_root_dir": "run",
        } | overrides
        return [f"--{name}={value}" for name, value in given.items()]

    return options
