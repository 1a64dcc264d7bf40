"""The head that every file of figures under results/ has."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch


def this_machine() -> str:
    """Return what this machine is, in a few words."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def record(
    command: str, machine: str, seeds: Sequence[int], figures: Any, note: str | None
) -> dict[str, Any]:
    """Return figures with what made them, where and when; `note` says what a reader must know beside them."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    head = {
        "command": command,
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "seeds": list(seeds),
        "figures": figures,
    }
    return head | ({"note": note} if note else {})
