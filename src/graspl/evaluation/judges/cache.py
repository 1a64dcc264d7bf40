"""Replies on disk, so that nothing is asked twice."""

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError

_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"


class ReplyCache:
    """Replies by what was asked, in a SQLite file, each on disk at once; without a path in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
            self._rows.execute(_TABLE)
            self._rows.commit()
        except (OSError, ValueError, sqlite3.Error) as error:  # A name of its schema may be no UTF-8
            raise GrasplError(f"{path}: cannot be used as a cache ({error}); name another file") from error

    @staticmethod
    def key(**asked: Any) -> str:
        """Return the key of a request: judge, prompt with the answer in it, and settings."""
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under a key, or None."""
        try:
            row = self._rows.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            return None if row is None else json.loads(row[0])
        except (ValueError, TypeError):  # Not what was kept: ask again
            return None
        except sqlite3.Error as error:
            raise GrasplError(f"the cache of replies is damaged ({error}); remove it") from error

    def put(self, key: str, reply: dict[str, Any]) -> None:
        """Keep a reply; any thread may."""
        with self._lock, self._rows:
            self._rows.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
