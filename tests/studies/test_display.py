"""The line that shows how far a step has come."""

import io
import time

from rich.console import Console

from graspl.studies import display


def test_the_line_of_a_terminal_is_drawn_seldom(monkeypatch):
    """Each drawing takes time from the fit that runs beside it."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=80)
    monkeypatch.setattr(display, "Console", lambda **_: terminal)
    began = time.monotonic()
    with display.step_shown(1, 3, "the naive fit"):
        time.sleep(2.2)
    drawn = written.getvalue().count("[1/3] the naive fit")
    seconds = time.monotonic() - began
    assert 2 <= drawn <= 3 * seconds + 3  # Twice a second, once a second with the time, and at both ends
