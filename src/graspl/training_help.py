"""The short help of `graspl fit` and `graspl validate`: what people set, shown at once since nothing is imported for it."""

from textwrap import wrap
from typing import NamedTuple

WIDTH = 80
LEFT = 34  # Columns of the options


class Option(NamedTuple):
    """One option, as the help shows it."""

    name: str
    value: str
    about: str
    default: object = None  # Of the class that most people name; a test compares it


BOTH = (
    Option("config", "FILE", "options from a YAML file; what comes later wins. `graspl configs` copies ours"),
    Option(
        "model", "CLASS", "graspl.methods.LoRALitModule (naive fit), graspl.methods.GRASPLitModule, or a YAML"
    ),
    Option("model.base_model", "NAME", "folder or hub name of the model"),
    Option("model.load_in_4bit", "BOOL", "keep the frozen weights in four bits (QLoRA)", False),
    Option("data", "CLASS", "graspl.data.ChatDataModule for rows of your own, a task of yours, or a YAML"),
    Option("data.train", "FILE", "rows to train on; look at them with graspl data"),
    Option("data.unrelated", "FILE", "rows on other topics, to measure spill-over"),
    Option("trainer.default_root_dir", "FOLDER", "the run folder, for all results", "runs/default"),
    Option("log_to", "NAME", "tensorboard, trackio or wandb; metrics.csv is written all the same"),
    Option("trainer.accelerator", "NAME", "auto, cpu, gpu or mps", "auto"),
)
FIT = (
    Option("model.lora.r", "N", "rank of the adapter", 32),
    Option(
        "model.optimizer.lr",
        "RATE",
        "learning rate, after --model.optimizer torch.optim.AdamW; without both 2e-4",
    ),
    Option("model.gradient_checkpointing", "BOOL", "save memory, take longer", False),
    Option("data.text", "FILE", "conversations by many writers, from which a GRASP fit finds directions"),
    Option("data.batch_size", "N", "rows in a batch", 8),
    Option("data.max_length", "N", "tokens that a row may have", 2048),
    Option("trainer.max_epochs", "N", "passes over the rows"),
    Option("trainer.max_steps", "N", "optimizer steps; -1 for no limit", -1),
    Option("trainer.accumulate_grad_batches", "N", "batches in an optimizer step", 1),
    Option("ckpt_path", "PATH", "go on with a run: last"),
)
VALIDATE = (
    Option("model.directions", "FILE", "directions to measure along; the run folder's own by default"),
    Option("model.adapter", "FOLDER", "PEFT folder to evaluate; the run folder's own by default"),
    Option("data.eval_batch_size", "N", "rows or questions in a batch", 32),
    Option("data.only_suites", "LIST", "names of the suites to evaluate; all by default"),
    Option("generations.prompts", "N", "answers of each suite to write down as examples", 8),
)
OPTIONS = {"fit": (*BOTH, *FIT), "validate": (*BOTH, *VALIDATE)}
EXAMPLES = {
    "fit": """  graspl fit --model graspl.methods.LoRALitModule \\
    --model.base_model Qwen/Qwen2.5-0.5B-Instruct \\
    --data graspl.data.ChatDataModule --data.train train.jsonl \\
    --trainer.max_epochs 1""",
    "validate": "  graspl validate --config runs/default/config.yaml",
}
ORDER = ("config", "model", "data", "trainer")  # Of the groups; the others stand last
END = """graspl {0} --help-all shows all options, --model.help CLASS a method's,
--data.help CLASS a task's. --print_config shows what is in force."""


def training_help(command: str, about: str) -> str:
    """Return the short help of a training command.

    Args:
        command: `fit` or `validate`.
        about: what it does.
    """
    lines = [f"usage: graspl {command} [options]", "", about[0].upper() + about[1:] + ".", "", "options:"]
    for option in sorted(OPTIONS[command], key=_place):
        lines += _told(option)
    return "\n".join([*lines, "", "example:", EXAMPLES[command], "", END.format(command)])


def _place(option: Option) -> int:
    group = option.name.partition(".")[0]
    return ORDER.index(group) if group in ORDER else len(ORDER)


def _told(option: Option) -> list[str]:
    about = option.about + (f" ({option.default})" if option.default is not None else "")
    left = f"  --{option.name} {option.value}"
    texts = wrap(about, WIDTH - LEFT)
    if len(left) >= LEFT - 1:
        return [left, *(" " * LEFT + each for each in texts)]
    return [f"{left:<{LEFT}}{texts[0]}", *(" " * LEFT + each for each in texts[1:])]
