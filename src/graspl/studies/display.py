"""How far a row of steps has come: a line that turns in a terminal, a line every so often in a file."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from rich.markup import escape

log = logging.getLogger(__name__)
EVERY = 30.0  # Seconds between lines in a file
SHOWN = 60  # Characters of a step's own last line
A_SECOND = 2.0  # Times a second that the line is drawn: rich's own 12.5 take a tenth of a core from the fit


@contextmanager
def step_shown(number: int, total: int, name: str, output: Path | None = None) -> Iterator[None]:
    """Show within the block that a step runs, for how long, and the last line of its output.

    Args:
        number: of the step, from 1.
        total: number of steps.
        name: what it does.
        output: the text file that it writes to while it runs, where there is one.
    """
    console, began = Console(stderr=True), time.monotonic()
    title = f"[{number}/{total}] {name}"

    def now() -> str:
        return f"{title}, {_since(began)}  {_last_line(output)}"

    if console.is_terminal:
        turning = console.status(escape(title), refresh_per_second=A_SECOND)
        with turning as status, _repeated(1.0, lambda: status.update(escape(now()))):
            yield
    else:
        log.info(title if output is None else f"{title}: its output is in {output}")
        with _repeated(EVERY, lambda: log.info(now())):
            yield
    log.info("%s: done in %s", title, _since(began))


@contextmanager
def _repeated(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Act again and again within the block, in a thread of its own."""
    ended = Event()

    def run() -> None:
        while not ended.wait(seconds):
            act()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _since(began: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return f"{minutes}:{seconds:02d}"


def _last_line(output: Path | None) -> str:
    """Return the last line of a file that has letters, cut, without characters that move a terminal's cursor."""
    if output is None:
        return ""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 4000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    printable = ("".join(each for each in line if each.isprintable()).strip() for line in lines)
    return next((line[:SHOWN] for line in reversed([*printable]) if line), "")
