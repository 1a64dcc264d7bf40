"""Files of text, unpacked as they are read where they are compressed, and never without end."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError

UNPACKED_BY: dict[str, Any] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}  # By the ending of compressed files
MOST_UNPACKED = 200  # Times its size on disk that a compressed file may hold; text comes to about 10
SMALL = 2**26  # Bytes that a compressed file may hold in any case


def opened(path: Path, newline: str | None = None) -> Any:
    """Return a file opened as text: without its byte-order mark, unpacked as its name says."""
    unpacked = UNPACKED_BY.get(path.suffix.lower())
    if unpacked is None:
        return path.open(encoding="utf-8-sig", newline=newline)
    raw = _Bounded(unpacked(path, "rb"), path)
    return io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8-sig", newline=newline)


class _Bounded(io.RawIOBase):
    """What a compressed file holds, up to so many times its size: a small file may unpack to a memory full of zeros."""

    def __init__(self, unpacked: Any, path: Path) -> None:
        self._unpacked, self._path, self._read = unpacked, path, 0
        self._most = max(SMALL, MOST_UNPACKED * path.stat().st_size)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return how many bytes came."""
        data = self._unpacked.read(len(buffer))
        self._read += len(data)
        if self._read > self._most:
            raise GrasplError(f"{self._path}: unpacks to more than {self._most} bytes; give it unpacked")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._unpacked.close()
        super().close()
