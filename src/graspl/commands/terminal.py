"""Where tables are printed."""

from rich.console import Console


def console() -> Console:
    """Return the terminal's console; a file or a pipe gets lines long enough for a table."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=160)
