"""The commands of README and documents."""

import re
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVERY = sorted(
    path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)
TEXT = {page: (ROOT / page).read_text() for page in EVERY}
PAGES = [page for page in EVERY if "```sh" in TEXT[page]]
MODELS = ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-32B-Instruct", "/models/Qwen2.5-32B")
"""Published models, in whose place a tiny one is put."""


def commands_of(page, start=("graspl ", "make ")):
    """Return the commands in a page's shell blocks, continued lines joined, remarks and others left out."""
    lines = (line.strip() for line in "\n".join(blocks_of(page, "sh")).replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith(start)]


def named_in(page, start=("graspl ", "make ", "pytest ", "python ", "pip ")):
    """Return the commands that a page's sentences and tables name, with at least one argument."""
    prose = re.sub(r"```.*?```", "", TEXT[page], flags=re.DOTALL)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose) if each.startswith(start)]


def blocks_of(page, language):
    """Return a page's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT[page], flags=re.DOTALL)


def modules_of(page):
    """Return the modules that a page has its reader write, by their files' names: blocks that begin with one."""
    named = {block.splitlines()[0].removeprefix("# "): block for block in blocks_of(page, "python")}
    return {name: block for name, block in named.items() if re.fullmatch(r"\w+\.py", name)}


def heading(file):
    """Return the commands of graspl in the remarks that a configuration begins with; `--` goes on with the one before."""
    remarks = [
        line[1:].strip()
        for line in takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    ]
    commands = []
    for remark in remarks:
        if remark.startswith("graspl "):
            commands.append(remark)
        elif remark.startswith("--") and commands:
            commands[-1] += f" {remark}"
    return commands


def on_a_tiny_model(command):
    """Return a command with `my-model` in place of published ones."""
    for name in MODELS:
        command = command.replace(name, "my-model")
    return command
