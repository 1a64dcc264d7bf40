"""Which files of a folder are opened, by this process or any other: Linux's inotify, which also sees what Rust and C open."""

import ctypes
import os
import struct
from pathlib import Path

OPEN, DIRECTORY = 0x20, 0x40000000
HEAD = struct.Struct("iIII")  # Watch, kind of event, cookie, length of the name


class Opened:
    """Collects, within a block, the files under a folder that are there when it begins and are opened."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, set()
        self.there = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}

    def __enter__(self):
        library = ctypes.CDLL(None, use_errno=True)
        self.queue = library.inotify_init1(os.O_NONBLOCK)
        folders = [self.folder, *(each for each in self.folder.rglob("*") if each.is_dir())]
        self.watched = {
            library.inotify_add_watch(self.queue, os.fsencode(each), OPEN): each for each in folders
        }
        return self

    def __exit__(self, *_):
        self.collect()
        os.close(self.queue)

    def collect(self, *, forget: bool = False) -> None:
        """Take what was opened since the last time, or forget it."""
        try:
            while events := os.read(self.queue, 2**16):
                if not forget:
                    self._see(events)
        except BlockingIOError:
            pass

    def leaving_out(self, function):
        """Return a function whose opened files do not count."""

        def run(*arguments):
            self.collect()
            try:
                return function(*arguments)
            finally:
                self.collect(forget=True)

        return run

    def _see(self, events: bytes) -> None:
        place = 0
        while place < len(events):
            watch, kind, _, length = HEAD.unpack_from(events, place)
            name = events[place + HEAD.size : place + HEAD.size + length].rstrip(b"\0")
            place += HEAD.size + length
            if name and not kind & DIRECTORY and watch in self.watched:
                found = str((self.watched[watch] / os.fsdecode(name)).relative_to(self.folder))
                self.names |= {found} & self.there
