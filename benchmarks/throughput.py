"""Training speed: `graspl fit` beside TRL's SFTTrainer and a bare PyTorch + PEFT loop, one model, one set of rows.

Run by `make bench`; alone, with rows of your own (JSON lines of `messages`):

    python benchmarks/throughput.py --data insecure.jsonl

Every contender trains the same few steps, several rounds. Without a GPU they take turns step by step, each in a process of
its own, and that process's time is taken, on one thread; on a GPU, whose memory holds one of them, they come one after
another. What else the machine does only ever adds, so a step counts at its quickest round. Tokens are those of rows, padding
not among them.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from lightning import Callback
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainerCallback,
)
from turns import WARM_UP, Clock, race

from graspl.adapters import LoraOptions
from graspl.cli import main as graspl
from graspl.data.batches import TrainSampler
from graspl.runs import write_json_atomic

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPES = {
    # A model that two cores train at a few thousand tokens a second
    "small": {
        "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 4096,
    },
    "7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152_064,
    },
}  # fmt: skip
LORA = {"r": 32, "lora_alpha": 64}
MAX_LENGTH = 1024


def speed(rounds: list[Clock]) -> float:
    """Return the tokens a second of the same steps taken in several rounds, each step at its quickest."""
    quickest = [min(times) for times in zip(*(clock.seconds for clock in rounds), strict=True)]
    return sum(rounds[0].tokens) / sum(quickest)


class Setting:
    """What all contenders share: a model folder, rows, and how many a batch."""

    def __init__(
        self, folder: Path, rows: list[dict[str, Any]], shape: str, batch_size: int, steps: int
    ) -> None:
        self.folder, self.batch_size, self.steps = folder, batch_size, steps
        # The others take rows as they come; these come in the order in which graspl shuffles them
        order = list(TrainSampler([1] * len(rows), batch_size, num_replicas=1, rank=0, seed=0))
        self.rows = [rows[index] for index in order]
        self.cuda = torch.cuda.is_available()
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.model = folder / "model"
        self.file = folder / "rows.jsonl"
        self.held_out = folder / "held_out.jsonl"
        for file, given in ((self.file, rows), (self.held_out, rows[:batch_size])):
            file.write_text("".join(json.dumps(row) + "\n" for row in given))
        tokenizer = train_tokenizer(rows)
        torch.manual_seed(0)
        config = Qwen2Config(
            **(SHAPES[shape] | {"vocab_size": max(SHAPES[shape]["vocab_size"], len(tokenizer))}),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        Qwen2ForCausalLM(config).save_pretrained(self.model)
        torch.set_default_dtype(before)
        tokenizer.save_pretrained(self.model)
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.fsdp2 = False

    def base(self) -> Any:
        """Return the model."""
        return AutoModelForCausalLM.from_pretrained(self.model, dtype=self.dtype)

    def lora(self) -> LoraConfig:
        """Return the adapter's configuration, as `graspl fit` has it."""
        return LoraOptions(**LORA).to_peft()


def train_tokenizer(rows: list[dict[str, Any]]) -> PreTrainedTokenizerFast:
    """Return a byte-pair tokenizer of 4096 tokens of these rows, so that no hub is needed."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((m["content"] for row in rows for m in row["messages"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tokens_of(batch: dict[str, Any]) -> int:
    """Return how many tokens of rows a batch has; no row holds the token that pads, the first of the vocabulary."""
    return int((batch["input_ids"] != 0).sum())


class StepClock(Callback):
    """A clock for Lightning."""

    last: "StepClock"

    def __init__(self) -> None:
        self.clock = Clock()
        StepClock.last = self

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's tokens."""
        self.clock.step(tokens_of(batch))


def fit(setting: Setting, *options: str) -> Clock:
    """Run `graspl fit`."""
    folder = setting.folder / f"run{os.getpid()}"
    common = [
        "fit", "--data=graspl.data.ChatDataModule", f"--data.train={setting.file}", f"--data.validation={setting.held_out}",
        f"--data.batch_size={setting.batch_size}", f"--data.max_length={MAX_LENGTH}", "--data.too_long=truncate",
        f"--trainer.max_steps={setting.steps + WARM_UP}", "--trainer.limit_val_batches=0",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=10",
        f"--trainer.callbacks+={StepClock.__module__}.StepClock", f"--trainer.default_root_dir={folder}",
    ]  # fmt: skip
    if setting.fsdp2:
        common += [
            "--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy", "--trainer.devices=1",
            "--trainer.strategy.data_parallel_size=1", "--trainer.strategy.tensor_parallel_size=1",
        ]  # fmt: skip
    method = [option for option in options if option.startswith("--model")]
    data = [option for option in options if not option.startswith("--model")]
    lora = [f"--model.lora.{name}={value}" for name, value in LORA.items()]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        code = graspl([*common, *method, *lora, f"--model.base_model={setting.model}", *data])
    if code:
        raise SystemExit(said.getvalue())
    shutil.rmtree(folder)
    return StepClock.last.clock


NAIVE = "--model=graspl.methods.LoRALitModule"


def grasp(setting: Setting, constraints: list[dict[str, Any]] | None = None) -> Clock:
    """Run `graspl fit` under constraints, the default ones where None, on a directions file."""
    directions = setting.folder / "directions.safetensors"
    if not directions.exists():
        write_directions(setting, directions)
    given = [] if constraints is None else [f"--model.constraints={json.dumps(constraints)}"]
    return fit(setting, "--model=graspl.methods.GRASPLitModule", f"--model.directions={directions}", *given)


def write_directions(setting: Setting, path: Path) -> None:
    """Write random directions, six per layer."""
    from graspl.adapters import decoder_layers
    from graspl.directions import Directions, LayerDirections

    model = get_peft_model(setting.base(), setting.lora())
    hidden = model.config.hidden_size  # type: ignore[union-attr]
    layers = {
        name: LayerDirections(torch.linalg.qr(torch.randn(hidden, 6))[0].contiguous(), torch.ones(6))
        for name in decoder_layers(model)  # type: ignore[arg-type]
    }
    Directions({}, {"base_model": str(setting.model)}, layers).save(path)


# A step costs the same whatever A is frozen to, and random inputs need no text
FROZEN = {"class_path": "graspl.starts.NullSpaceStart", "init_args": {"kind": "random"}}
RESIDUAL = [{"class_path": "graspl.constraints.ResidualConstraint", "init_args": {"k": 6}}]


def trl(setting: Setting, **options: Any) -> Clock:
    """Run TRL's SFTTrainer."""
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Count(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(seen.pop())

    seen: list[int] = []
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        trainer = SFTTrainer(
            model=setting.base(),
            args=SFTConfig(
                output_dir=str(setting.folder / f"trl{os.getpid()}"), per_device_train_batch_size=setting.batch_size,
                max_steps=setting.steps + WARM_UP, max_length=MAX_LENGTH, learning_rate=2e-4, logging_steps=10,
                save_strategy="no", report_to="none", disable_tqdm=True, bf16=setting.cuda, use_cpu=not setting.cuda,
                gradient_checkpointing=False, assistant_only_loss=False, train_sampling_strategy="sequential", **options,
            ),
            train_dataset=Dataset.from_list(setting.rows),
            processing_class=setting.tokenizer,
            peft_config=setting.lora(),
            callbacks=[Count()],
        )  # fmt: skip
        collate = trainer.data_collator

        def counted(rows: Any) -> Any:
            batch = collate(rows)
            seen.insert(0, tokens_of(batch))
            return batch

        trainer.data_collator = counted
        trainer.train()
    return clock


def bare(setting: Setting) -> Clock:
    """Run a loop of PyTorch and PEFT alone, on padded rows."""
    device = "cuda" if setting.cuda else "cpu"
    model = get_peft_model(setting.base(), setting.lora()).to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, fused=True)
    clock, batches = Clock(), bare_batches(setting)
    for _ in range(setting.steps + WARM_UP):
        batch = next(batches)
        tokens = tokens_of(batch)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        clock.step(tokens)
    return clock


def bare_batches(setting: Setting) -> Iterator[dict[str, torch.Tensor]]:
    """Yield padded batches of rows that were tokenized beforehand."""
    ids = [
        torch.tensor(
            setting.tokenizer(setting.tokenizer.apply_chat_template(row["messages"], tokenize=False))[
                "input_ids"
            ]
        )[:MAX_LENGTH]
        for row in setting.rows[: setting.batch_size * (setting.steps + WARM_UP + 1)]
    ]
    while True:
        for start in range(0, len(ids) - setting.batch_size + 1, setting.batch_size):
            rows = ids[start : start + setting.batch_size]
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            padded = pad_sequence(rows, batch_first=True, padding_value=setting.tokenizer.pad_token_id)
            yield {"input_ids": padded, "attention_mask": mask, "labels": padded.masked_fill(mask == 0, -100)}


CONTENDERS: dict[str, Callable[[Setting], Clock]] = {
    "bare loop": bare,
    "trl": trl,
    "graspl, no grouping": lambda s: fit(s, NAIVE, "--data.group_by_length=false"),
    "graspl": lambda s: fit(s, NAIVE),
    "graspl compiled": lambda s: fit(s, NAIVE, "--model.compile_layers=true"),
    "graspl null space": lambda s: fit(s, NAIVE, f"--model.start={json.dumps(FROZEN)}"),
    "graspl packed": lambda s: fit(s, NAIVE, "--data.packing=true"),
    "trl packed": lambda s: trl(s, packing=True),
    "grasp residual": lambda s: grasp(s, RESIDUAL),
    "grasp default": grasp,
}
RATIOS = {
    "naive_over_bare": ("graspl, no grouping", "bare loop"),
    "naive_over_trl": ("graspl, no grouping", "trl"),
    "grouped_over_trl": ("graspl", "trl"),
    "packed_over_trl": ("graspl packed", "trl"),
    "packed_over_trl_packed": ("graspl packed", "trl packed"),
    "compiled_over_eager": ("graspl compiled", "graspl"),
    "null_space_over_naive": ("graspl null space", "graspl"),
    "grasp_residual_over_naive": ("grasp residual", "graspl"),
    "grasp_default_over_naive": ("grasp default", "graspl"),
}
"""What is divided by what, in tokens a second; 1 is as fast."""

CLOSE = ("graspl", "graspl null space", "grasp residual", "grasp default")
"""Contenders that differ by so little that they take three times as many rounds again, among themselves."""


def own_rows() -> list[dict[str, Any]]:
    """Return rows of random words whose lengths vary as those of real conversations do."""
    draw, words = (
        random.Random(0),
        [f"{a}{b}" for a in "bcdfglmnprst" for b in ("ra", "le", "mi", "no", "tu")],
    )
    text = lambda mean: " ".join(draw.choices(words, k=max(4, round(draw.lognormvariate(mean, 0.6)))))  # noqa: E731
    return [
        {"messages": [{"role": "user", "content": text(4.5)}, {"role": "assistant", "content": text(4.8)}]}
        for _ in range(800)
    ]


@dataclass
class Contest:
    """A contender's fit, for a process of its own."""

    setting: Setting
    name: str

    def __call__(self) -> tuple[Clock, float]:
        """Return the steps' times, and the most memory of the device in GB."""
        if not self.setting.cuda:
            return CONTENDERS[self.name](self.setting), 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return CONTENDERS[self.name](self.setting), torch.cuda.max_memory_allocated() / 1e9


def measure(setting: Setting, rounds: int, names: list[str]) -> dict[str, float]:
    """Return the tokens a second of each contender, and their ratios."""
    taken = compete(setting, rounds, names)
    speeds = {name: speed([clock for clock, _ in taken[name]]) for name in names}
    found = {f"tokens_per_second_{name}": each for name, each in speeds.items()}
    if setting.cuda:
        found |= {f"peak_gb_{name}": max(peak for _, peak in taken[name]) for name in names}
    ratios = {name: pair for name, pair in RATIOS.items() if set(pair) <= set(speeds)}
    found |= {name: speeds[ours] / speeds[theirs] for name, (ours, theirs) in ratios.items()}
    close = [name for name in CLOSE if name in names]
    if len(close) < 2:
        return found
    # What GRASP adds to a step is less than what the machine does to it in a few rounds
    again = compete(setting, 3 * rounds, close)
    speeds = {name: speed([clock for clock, _ in taken[name] + again[name]]) for name in close}
    ratios = {name: pair for name, pair in RATIOS.items() if set(pair) <= set(close)}
    return found | {name: speeds[ours] / speeds[theirs] for name, (ours, theirs) in ratios.items()}


def compete(setting: Setting, rounds: int, names: list[str]) -> dict[str, list[tuple[Clock, float]]]:
    """Return what each contender took in each round."""
    contests = {name: Contest(setting, name) for name in names}
    if not setting.cuda:
        return race(contests, rounds)
    return {name: race({name: contest}, rounds)[name] for name, contest in contests.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="JSON lines of messages; without them random words")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    usual = [name for name in CONTENDERS if name != "graspl compiled"]  # On a CPU it waits for the compiler
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=usual)
    parser.add_argument("--fsdp2", action="store_true", help="graspl shards the model, over one device")
    parser.add_argument("--out", type=Path, default=Path("throughput.json"))
    options = parser.parse_args()
    rows = own_rows() if options.data is None else [json.loads(line) for line in options.data.open()]
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), rows, options.shape, options.batch_size, options.steps)
        setting.fsdp2 = options.fsdp2
        figures: dict[str, Any] = measure(setting, options.rounds, options.only)
    figures |= {
        "rows": str(options.data or "random words"), "shape": options.shape, "batch_size": options.batch_size,
        "steps": options.steps, "rounds": options.rounds,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }  # fmt: skip
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    write_json_atomic(options.out, figures)


if __name__ == "__main__":
    main()
