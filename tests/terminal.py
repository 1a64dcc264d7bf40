"""What a terminal shows of a command."""

import os
import pty
import re
import select
import subprocess


def in_a_terminal(command, folder, columns=80):
    """Run a command in a pseudo-terminal, and return what it wrote."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(columns),
        "LINES": "40",
        "TERM": "xterm",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    written += os.read(ours, 65536)
                except OSError:  # The terminal is closed
                    break
            elif process.poll() is not None:
                break
    os.close(ours)
    return process.returncode, written.decode()


def screen(written):
    """Return the lines that a terminal shows in the end, and every state that its last line was in."""
    lines, states, place = [""], [], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", written):
        if part == "\n":
            place += 1
            if place == len(lines):
                lines.append("")
        elif part == "\x1b[2K":
            states.append(lines[place])
            lines[place] = ""
        elif part == "\x1b[1A":
            place = max(0, place - 1)
        elif not part.startswith("\x1b") and part != "\r":
            lines[place] += part
    return lines, states
