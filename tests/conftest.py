"""Shared fixtures; everything is built from configurations, nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Lightning 2.6 still makes calls that jsonargparse 4.53 deprecates
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
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


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Return a function: family -> folder of a tiny random model; the families are in families.py."""
    from families import family_folder

    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = family_folder(kind, tmp_path_factory.mktemp(kind))
        return str(made[kind])

    return folder


@pytest.fixture
def stub():
    """Return a function that starts an endpoint which behaves as it is told."""
    from endpoint import Stub

    made = []

    def make(behave):
        made.append(Stub(behave))
        return made[-1]

    yield make
    for each in made:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def soon():
    """Stop a test that never ends."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it does not end"))
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt: a shell starts what runs in the background with that signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


@pytest.fixture
def fit(model_folder, write_rows, tmp_path):
    """Return a function that fits on a tiny model and returns the module and its trainer."""
    from fits import train
    from lightning import seed_everything

    from graspl.methods import LoRALitModule

    rows = write_rows(CHAT_ROWS)

    def run(kind=LoRALitModule, *, data=None, lightning=None, folder="llama", **options):
        seed_everything(0, verbose=False)
        module = kind(base_model=str(model_folder(folder)), **options)
        settings = {"batch_size": 4, "group_by_length": False} | (data or {})
        return module, train(module, rows=rows, folder=tmp_path, data=settings, lightning=lightning)

    return run


@pytest.fixture
def one_fit(model_folder, write_rows, tmp_path):
    """Return a function that fits with GRASP, with text and dropout, and returns the module and what it began with."""
    from fits import adam, factors, train
    from lightning import Callback, seed_everything

    from graspl.adapters import LoraOptions
    from graspl.methods import GRASPLitModule

    class Start(Callback):
        """Remembers the adapter, the optimizer and the batch of the first step."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if not hasattr(self, "factors"):
                self.factors = factors(pl_module)
                self.state = dict(trainer.optimizers[0].state)
                self.ids = batch["input_ids"].clone()
                self.random_state = torch.get_rng_state()

    rows = str(write_rows(CHAT_ROWS))

    def run(kind=GRASPLitModule, *, text=rows, lightning=None, **options):
        seed_everything(0, verbose=False)
        given = {"lora": LoraOptions(r=4, lora_dropout=0.1), "optimizer": adam} | options
        module = kind(base_model=str(model_folder()), **given)
        start = Start()
        settings = {"callbacks": [start]} | (lightning or {})
        train(module, rows=rows, folder=tmp_path, data={"text": text, "batch_size": 3}, lightning=settings)
        return module, start

    return run


@pytest.fixture
def part_fit(model_folder, write_rows, tmp_path):
    """Return a function that fits a small adapter with any parts, with text, and returns the module."""
    from fits import RANK, adam, train
    from lightning import seed_everything

    from graspl.adapters import LoraOptions
    from graspl.methods import LoRALitModule

    rows = str(write_rows(CHAT_ROWS))

    def run(*, kind=LoRALitModule, max_steps=3, ckpt_path=None, **parts):
        seed_everything(0, verbose=False)
        options = {"lora": LoraOptions(r=RANK, lora_alpha=8), "optimizer": adam} | parts
        module = kind(base_model=str(model_folder()), **options)
        data = {"text": rows, "batch_size": 4, "group_by_length": False}
        lightning = {"max_steps": max_steps, "ckpt_path": ckpt_path}
        train(module, rows=rows, folder=tmp_path, data=data, lightning=lightning)
        return module

    return run


@pytest.fixture
def random_directions(part_fit, tmp_path):
    """Return a file with random directions, with a sign, of every site and layer of the tiny model."""
    from fits import RANK

    from graspl.adapters import layer_names
    from graspl.directions import Directions, LayerDirections, SiteDirections

    generator = torch.Generator().manual_seed(3)

    def basis(rows):
        return torch.linalg.qr(torch.randn(rows, RANK, generator=generator))[0]

    sites = part_fit(max_steps=1).sites
    found = Directions(
        {
            site.name: SiteDirections(basis(site.shape[0]), torch.ones(RANK), basis(site.shape[1]))
            for site in sites
        },
        {"identification": "Random", "signed": "true", "filters": "false"},
        {name: LayerDirections(basis(32), torch.ones(RANK)) for name in layer_names(sites)},
    )
    found.save(tmp_path / "random.safetensors")
    return str(tmp_path / "random.safetensors")


@pytest.fixture
def directions_of(fit, tmp_path):
    """Return a function: a name and an identification -> the file of its directions in a naive fit."""
    from fits import adam, save

    from graspl.directions import identify_adapter

    def identified(name, method):
        module, _ = fit(optimizer=adam)
        file = tmp_path / f"{name}.safetensors"
        identify_adapter(save(module, tmp_path / f"{name}-adapter"), method, file)
        return str(file)

    return identified


@pytest.fixture
def directions(directions_of):
    """Return a file with directions of each site of a naive fit."""
    from graspl.directions import TopSingular

    return directions_of("directions", TopSingular(k=2))


@pytest.fixture
def layer_directions(directions_of):
    """Return a file with directions of each layer of a naive fit, without a sign."""
    from graspl.directions import LayerSingular

    return directions_of("layers", LayerSingular(k=2))


@pytest.fixture
def signed_directions(directions_of, write_rows):
    """Return a file with the mean shift of a naive fit at each layer."""
    from graspl.activations import MeanShift

    return directions_of("shift", MeanShift(rows=str(write_rows(CHAT_ROWS, "shifted.jsonl"))))


@pytest.fixture
def finished(fit, tmp_path):
    """Return a function: a transform -> the naive fit's updates and the saved ones, by site."""
    from fits import adam, factors, save

    from graspl.adapters import read_adapter

    def run(transform):
        naive, _ = fit(optimizer=adam)
        module, _ = fit(optimizer=adam, transforms=[transform])
        assert torch.equal(factors(naive), factors(module))  # training never sees it
        folder = save(module, tmp_path / type(transform).__name__)
        assert torch.equal(factors(naive), factors(module))
        saved = {site.name: site.scaling * site.B @ site.A for site in read_adapter(folder).sites}
        return {site.name: (site.scaling * site.B @ site.A).detach() for site in naive.sites}, saved

    return run


@pytest.fixture
def unaligned(tmp_path):
    """Return the folder of a model of the same shapes with other weights."""
    model = make_model("llama")
    generator = torch.Generator().manual_seed(5)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    model.save_pretrained(tmp_path / "unaligned")
    make_tokenizer().save_pretrained(tmp_path / "unaligned")
    return str(tmp_path / "unaligned")


@pytest.fixture
def study(model_folder, write_rows, tmp_path):
    """Return a function that writes a study's configuration: naive, GRASP in one fit, and one that fails."""
    rows = str(write_rows(CHAT_ROWS))
    quick = {"lora": {"r": 4}, "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}}

    def write(*, without=(), **changes):
        (tmp_path / "fit.yaml").write_text(
            yaml.safe_dump(
                {
                    "data": {
                        "class_path": "graspl.data.ChatDataModule",
                        "init_args": {"train": rows, "unrelated": rows, "text": rows, "batch_size": 4},
                    },
                    "trainer": {
                        "max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "log_every_n_steps": 1,
                        "accelerator": "cpu", "devices": 1,
                    },
                }
            )
        )  # fmt: skip
        methods = {
            name: {"model": {"class_path": f"graspl.methods.{kind}", "init_args": {**quick, **more}},
                   "data": {"init_args": {"seed": "{seed}"}}}
            for name, kind, more in (
                ("naive", "LoRALitModule", {}),
                ("grasp", "GRASPLitModule", {}),
                ("broken", "GRASPLitModule", {"directions": "none.safetensors"}),
            )
            if name not in without
        }  # fmt: skip
        config = {
            "fit": "fit.yaml", "methods": methods, "seeds": [0, 1], "levels": [0.02], "out": "study",
            "base_model": str(model_folder()), **changes,
        }  # fmt: skip
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return ["compare", "--config", "study.yaml"]

    return write
