"""Write docs/commands.md, every command with its options as `--help` shows them: `python docs/write_commands.py [FILE]`."""

import os
import sys
from pathlib import Path
from unittest.mock import patch

from graspl.cli import TOOLS, TRAINING, tool_parser
from graspl.training_help import training_help

TARGET = Path(__file__).with_name("commands.md")
HEAD = """# Commands

What `--help` shows, command by command. Each option can also stand in a YAML file (`--config FILE`), where
what comes later wins, and in an environment variable: `GRASPL_FIT__TRAINER__MAX_STEPS` for `--trainer.max_steps` of a fit.
`graspl fit --help-all` lists every option of a fit, most of them Lightning's.

A command ends with code 0, with 2 where an input is wrong, and with 130 where it was interrupted. `graspl audit` ends with 1
where a check failed, and `graspl verify` where a file does not belong to the others.
"""


def page() -> str:
    """Return the page."""
    told = []
    with patch.dict(os.environ, {"COLUMNS": "100"}):
        for name, about in (TRAINING | TOOLS).items():
            shown = training_help(name, about) if name in TRAINING else _tool(name)
            told.append(f"## graspl {name}\n\n```text\n{shown.strip()}\n```\n")
    return "\n".join([HEAD, *told])


def _tool(name: str) -> str:
    return tool_parser(name, environment=False)[0].format_help()


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else TARGET).write_text(page(), encoding="utf-8")
