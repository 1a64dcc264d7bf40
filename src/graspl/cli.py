"""`graspl`: the front door. It imports nothing heavy, so that help is there at once."""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError, users_mistake

TRAINING = {
    "fit": "fine-tune a model: a naive fit, or a GRASP fit that blocks unwanted directions",
    "validate": "measure adherence, spill-over, coherence, divergence and reliance",
}
TOOLS = {
    "try": "from rows to a verdict: a naive fit, a GRASP fit, the base model and a report",
    "identify": "find the directions that an adapter leans on; explain and test them",
    "judge": "judge the answers that a run wrote; rates with intervals",
    "contrast": "compare runs with control runs, question by question",
    "audit": "check an adapter before it ships: weights, reliance, behaviour",
    "subspaces": "show what the updates of several adapters have in common",
    "configs": "copy the configurations that come with graspl",
    "compare": "run a study, methods by seeds, and compare them with intervals",
    "plan": "count the memory that a fit needs, before you run it",
    "verify": "check that a run's results belong to its weights and rows",
    "report": "compare runs: a table, trade-off curves and an HTML page",
}
ABOUT = "Fine-tune language models for the skill without the side effect."
USAGE_ERROR = 2
INTERRUPTED = 130
WIDTH = 160  # Columns of what is not a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    It is 0, 1 for an audit that failed or a result that is stale, 2 for a mistake of the user's (told in one line), or 130
    after an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "--version"):
        print(f"graspl {__version__}" if command == "--version" else _help())
        return 0
    if command not in TRAINING | TOOLS:
        return _complain(f"{command} is no command; choose from {', '.join(TRAINING | TOOLS)}")
    _log_to_stderr()
    _find_modules_here()
    try:
        _check_files(arguments)
        return _run_training(arguments) if command in TRAINING else _run_tool(command, arguments[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # only the user's mistakes are kept short
        message = users_mistake(error)
        if message is None:
            raise
        return _complain(message)


def _check_files(arguments: Sequence[str]) -> None:
    """Refuse YAML files that are missing or not UTF-8: jsonargparse takes for granted that they can be read."""
    for before, argument in pairwise(["", *arguments]):
        option, _, value = argument.partition("=") if "=" in argument else (before, "", argument)
        if not option.startswith("--") or Path(value).suffix not in (".yaml", ".yml"):
            continue
        if Path(value).exists() and not Path(value).is_file():
            raise GrasplError(f"{option}: {value} is no file; give a file")
        try:
            Path(value).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise GrasplError(f"{option}: there is no file {value}") from error
        except UnicodeDecodeError as error:
            raise GrasplError(f"{option}: {value} is not UTF-8 text (see byte {error.start})") from error


def _log_to_stderr() -> None:
    logger = logging.getLogger("graspl")
    logger.handlers = [logging.StreamHandler()]  # bound to the stderr of this call
    logger.setLevel(logging.INFO)


def _find_modules_here() -> None:
    """Let class paths name modules in the current folder, as `python -m graspl` does. Installed ones come first."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _help() -> str:
    width = max(map(len, TRAINING | TOOLS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in (TRAINING | TOOLS).items())
    return f"usage: graspl COMMAND [options]\n\n{ABOUT}\n\ncommands:\n{commands}\n\n" + (
        "graspl COMMAND --help shows a command's options, graspl --version the version."
    )


def _run_training(arguments: list[str]) -> int:
    from transformers.utils.logging import disable_progress_bar

    from graspl.training_checks import told_in_one_line
    from graspl.training_cli import GrasplCLI

    disable_progress_bar()
    # The first word stays: strategies start further processes with this very command
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        with told_in_one_line():
            GrasplCLI()
    except SystemExit as end:
        # So does Lightning end a fit that was interrupted
        if isinstance(end.__context__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    finally:
        sys.argv = before
    return 0


def tool_parser(command: str, *, environment: bool = True) -> tuple[Any, Callable[..., Any]]:
    """Return the parser and the function of one of `TOOLS`; without `environment` its help names no variables."""
    from importlib import import_module

    from jsonargparse import ArgumentParser

    from graspl.commands.options import add_options

    parser = ArgumentParser(
        prog=f"graspl {command}",
        allow_abbrev=False,
        exit_on_error=False,
        default_env=environment,
        env_prefix=f"GRASPL_{command.upper()}",
    )
    parser.add_argument("--config", action="config", help="file with options")
    name = {"try": "try_out"}.get(command, command)  # A word of Python's own names no function
    function = getattr(import_module(f"graspl.commands.{name}"), name)
    add_options(parser, function)
    return parser, function


def _run_tool(command: str, arguments: list[str]) -> int:
    asks_for_help = any(each == "-h" or each.endswith("help") for each in arguments)
    parser, function = tool_parser(command, environment=not asks_for_help)
    options = vars(parser.instantiate(parser.parse_args(arguments)))
    options.pop("config", None)
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    result = function(**options)
    _show(result.render())
    return getattr(result, "exit_code", 0)


def _show(parts: Iterable[Any]) -> None:
    """Print tables and lines as they are, without markup; a file or a pipe gets wide tables."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), highlight=False, markup=False)


def _complain(message: str) -> int:
    print("graspl: error: " + " ".join(message.split()), file=sys.stderr)
    return USAGE_ERROR
