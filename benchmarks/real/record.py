"""The head that every file of figures under results/ has."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


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
