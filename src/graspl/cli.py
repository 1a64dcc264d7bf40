"""`graspl`: the front door. It imports nothing heavy, so that help is there at once."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError, foreign, printable, shorten, users_mistake
from graspl.preflight import check_tool, check_training, classes_first, joined, meant
from graspl.quiet import StderrHandler, loading
from graspl.training_help import training_help

TRAINING = {
    "fit": "fine-tune a model: a naive fit, or a GRASP fit that blocks unwanted directions",
    "validate": "measure adherence, spill-over, coherence, divergence and reliance",
}
TOOLS = {
    "try": "from rows to a verdict: a naive fit, a GRASP fit, the base model and a report",
    "demo": "the whole loop on a small model that comes with graspl: no model, no rows, no GPU",
    "data": "show what a fit would train on: lengths, what is left out, the trained tokens",
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
    "export": "write the adapter or the merged model for Transformers, PEFT, vLLM and llama.cpp",
}
ABOUT = "Fine-tune language models for the skill without the side effect."
USAGE_ERROR = 2
INTERRUPTED = 130
WIDTH = 160  # Columns of what is not a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    It is 0, 1 for an audit that failed, a result that is stale or rows that a fit would refuse, 2 for a mistake of the user's
    (told in one line), or 130 after an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in TRAINING and any(each in ("-h", "--help") for each in arguments):
        print(training_help(command, TRAINING[command]))
        return 0
    if command in ("-h", "--help", "--version"):
        print(f"graspl {__version__}" if command == "--version" else _help())
        return 0
    if command not in TRAINING | TOOLS:
        choice = f"choose from {', '.join(TRAINING | TOOLS)}"
        return _complain(joined(f"{command} is no command", meant(command, [*TRAINING, *TOOLS]), choice))
    _log_to_stderr()
    _find_modules_here()
    try:
        _check_files(arguments)
        if command in TRAINING:
            check_training(command, arguments[1:])
            return _run_training(classes_first(arguments))
        check_tool(command, arguments[1:])
        return _run_tool(command, arguments[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # only the user's mistakes are kept short
        message = users_mistake(error)
        if message is None:
            raise
        return _complain(_with_fix(message, command, error))


def _check_files(arguments: Sequence[str]) -> None:
    """Refuse YAML files that are missing or not UTF-8: jsonargparse takes for granted that they can be read."""
    from graspl.runs.yaml_text import parse_yaml

    for before, argument in pairwise(["", *arguments]):
        option, _, value = argument.partition("=") if "=" in argument else (before, "", argument)
        if not option.startswith("--") or Path(value).suffix not in (".yaml", ".yml"):
            continue
        if Path(value).exists() and not Path(value).is_file():
            raise GrasplError(f"{option}: {value} is no file; give a file")
        try:
            text = Path(value).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise GrasplError(f"{option}: there is no file {value}") from error
        except UnicodeDecodeError as error:
            raise GrasplError(f"{option}: {value} is not UTF-8 text (see byte {error.start})") from error
        with foreign(f"{option}: {value}", "is not YAML that can be read", "correct it"):
            parse_yaml(text)


def _log_to_stderr() -> None:
    logger = logging.getLogger("graspl")
    handler = StderrHandler()
    handler.setFormatter(_Printable())
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


class _Printable(logging.Formatter):
    """Escapes what a terminal would act on: messages quote files that others made."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's message."""
        return printable(super().format(record))


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
    with loading(also_in_files=True):
        from transformers.utils.logging import disable_progress_bar

        from graspl.reporting.results import results_parts
        from graspl.training_checks import told_in_one_line
        from graspl.training_cli import GrasplCLI

    disable_progress_bar()
    began = time.monotonic()
    # The first word stays: strategies start further processes with this very command
    whole = ["--help" if each == "--help-all" else each for each in arguments]
    before, sys.argv = sys.argv, [sys.argv[0], *whole]
    try:
        with told_in_one_line():
            trainer = GrasplCLI().trainer
    except SystemExit as end:
        # So does Lightning end a fit that was interrupted
        if isinstance(end.__context__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    finally:
        sys.argv = before
    _show(results_parts(trainer, time.monotonic() - began))
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
    with loading(also_in_files=False):
        module = import_module(f"graspl.commands.{name}")
    function = getattr(module, name)
    add_options(parser, function, without=getattr(module, "WITHOUT", ()))
    return parser, function


def _run_tool(command: str, arguments: list[str]) -> int:
    asks_for_help = any(each == "-h" or each.endswith("help") for each in arguments)
    parser, function = tool_parser(command, environment=not asks_for_help)
    from graspl.commands.options import parse_arguments

    parsed = parse_arguments(parser, function, arguments)
    options = vars(parser.instantiate(parsed))
    options.pop("config", None)
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    from graspl.runs import running

    with running(command, arguments, parser.dump(parsed, skip_none=False)):
        result = function(**options)
    _show(result.render())
    return getattr(result, "exit_code", 0)


def _show(parts: Iterable[Any]) -> None:
    """Print tables and lines as they are, without markup; a file or a pipe gets wide tables."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        """Shows every text, in tables too, as it is: it may come from files that others made."""

        def render_str(self, text: str, **options: Any) -> Text:
            plain: Any = options | {"markup": False, "emoji": False}
            return super().render_str(printable(text), **plain)

    if isinstance(sys.stdout, TextIOWrapper):  # Text of a file may hold what the terminal's encoding has not
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Plain(width=None if sys.stdout.isatty() else WIDTH)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), highlight=False, markup=False)


def _with_fix(message: str, command: str, error: Exception) -> str:
    """Return a message; one of jsonargparse's with what to do."""
    from jsonargparse import ArgumentError

    if not isinstance(error, ArgumentError) or message != shorten(str(error)):
        return message
    from graspl.hints import names_of, with_fix

    return with_fix(message, command, names_of(tool_parser(command)[0]) if command in TOOLS else [])


def _complain(message: str) -> int:
    print("graspl: error: " + printable(" ".join(message.split())), file=sys.stderr)
    return USAGE_ERROR
