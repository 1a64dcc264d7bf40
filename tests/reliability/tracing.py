"""Processes whose every change of a folder is seen by the kernel, counted, and where asked for cut off by SIGKILL.

A child is traced with ptrace. A seccomp filter stops it at each system call that is not on the list of those that change
no file (`HARMLESS`), whoever makes it: Python, a C library, SQLite, Rust, a thread, a process of its own. So nothing has to
be wrapped, and a call that is on no list is an error (`Trace.unknown`) instead of a hole. Linux on x86-64 only.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from syscalls import CREATES, GIVEN, HARMLESS, KINDS, NAMES

TRACEME, CONT, SYSCALL, SETOPTIONS, GETEVENTMSG = 0, 7, 24, 0x4200, 0x4201
GETREGSET, SETREGSET, PRSTATUS = 0x4204, 0x4205, 1
# Good stops of system calls; fork, vfork, clone, exec; seccomp; a tracer that ends takes all with it
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
SECCOMP_EVENT, EXIT_STOP = 7, signal.SIGTRAP | 0x80
ALL_THREADS = 0x40000000
REGISTERS, NUMBER, RESULT = (
    27,
    15,
    10,
)  # Of `user_regs_struct`: how many, and where the call and its result stand
ARGUMENTS = (14, 13, 12, 7, 9, 8)
HERE = -100  # AT_FDCWD
LIMIT = 300  # Seconds that a child may take

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Point(NamedTuple):
    """One change of the folders that are watched."""

    call: str  # Name of the system call
    path: str  # What it changes; of a renaming, the new name
    size: int  # Bytes to be written; 0 of other calls


class Stop(NamedTuple):
    """Where a child is killed."""

    point: int  # Number of the point, from 0
    half: bool = False  # After half of the bytes of a write, rather than before it
    alone: bool = False  # Only the process that reached the point, rather than all


@dataclass
class Trace:
    """What a child did."""

    code: int | None = None  # Exit code; None where it was killed
    points: list[Point] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)  # Calls on no list
    unseen: list[str] = field(default_factory=list)  # Changes of the folders that no point stands for


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def forked(work: Callable[[], int]) -> int:
    """Return the process that does some work in a session of its own and ends with its exit code."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        code = work()
    finally:
        os._exit(code)


def plain(work: Callable[[], int]) -> int:
    """Do some work in a process of its own, untraced, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1])


def traced(work: Callable[[], int], inside: Path, stop: Stop | None = None, *, watch: bool = False) -> Trace:
    """Do some work in a process of its own and return what it changed inside a folder.

    Args:
        work: returns an exit code.
        inside: the folder, as the kernel names it (without links).
        stop: where to kill it, if anywhere.
        watch: compare the whole folder between two points too (`Trace.unseen`), which does not rely on any list of calls.
    """

    def obedient() -> int:
        _ask_for_tracing()
        return work()

    tracer = _Tracer(forked(obedient), inside, stop, watch)
    tracer.follow()
    return tracer.trace


def _ask_for_tracing() -> None:
    libc.ptrace(TRACEME, 0, None, None)
    os.kill(os.getpid(), signal.SIGSTOP)
    no_new_privileges, set_seccomp, filtering = 38, 22, 2
    program = _filter()
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(no_new_privileges, one, none, none, none) or libc.prctl(set_seccomp, filtering, header):
        raise OSError(ctypes.get_errno(), "no seccomp")


def _filter() -> bytes:
    """Return a BPF program: calls without harm go on, as do opening to read and private mappings; all else stops."""
    load, equal, has, give = 0x20, 0x15, 0x45, 0x06
    allow, trace = 0x7FFF0000, 0x7FF00000

    def line(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    program = line(load, 0, 0, 0)
    for number in HARMLESS:
        program += line(equal, 0, 1, number) + line(give, 0, 0, allow)
    for name, (argument, bits) in CREATES.items():
        # On to the next call, or look at the lower half of one argument
        program += line(equal, 0, 4, NAMES[name]) + line(load, 0, 0, 16 + 8 * argument)
        program += line(has, 1, 0, bits) + line(give, 0, 0, allow) + line(give, 0, 0, trace)
    return program + line(give, 0, 0, trace)


class _Tracer:
    def __init__(self, first: int, inside: Path, stop: Stop | None, watch: bool) -> None:
        self.first, self.inside, self.stop, self.watch = first, str(inside), stop, watch
        self.trace = Trace()
        self.alive, self.in_call = {first}, set[int]()
        self.killing: set[int] = set()  # Threads in the write that is cut off
        self.before: Any = None

    def follow(self) -> None:
        """Let the child and all that it starts run to their ends."""
        os.waitpid(self.first, 0)
        libc.ptrace(SETOPTIONS, self.first, None, OPTIONS)
        libc.ptrace(CONT, self.first, None, None)
        before = signal.signal(signal.SIGALRM, lambda *_: os.killpg(self.first, signal.SIGKILL))
        signal.alarm(LIMIT)
        while self.alive:
            thread, status = os.waitpid(-1, ALL_THREADS)
            if os.WIFSTOPPED(status):
                self._stopped(thread, status >> 8)
            else:
                self._ended(thread, status)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

    def _ended(self, thread: int, status: int) -> None:
        self.alive.discard(thread)
        self.in_call.discard(thread)
        if thread == self.first:
            self.trace.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None

    def _stopped(self, thread: int, how: int) -> None:
        known, deliver, go_on = thread in self.alive, 0, CONT
        self.alive.add(thread)
        event, number = how >> 8, how & 0xFF
        if event == SECCOMP_EVENT:
            go_on = self._called(thread)
        elif number == EXIT_STOP:
            self._returned(thread)
        elif event == 0 and number != signal.SIGTRAP and (known or number != signal.SIGSTOP):
            deliver = number
        libc.ptrace(go_on, thread, None, deliver)

    def _called(self, thread: int) -> int:
        """Look at a call that is about to be made, and return how to go on."""
        registers = self._registers(thread)
        name = KINDS.get(registers[NUMBER])
        if name is None:
            self.trace.unknown.add(str(registers[NUMBER]))
            return CONT
        arguments = [registers[place] for place in ARGUMENTS]
        paths = [path for path in _paths(thread, name, arguments) if self._is_inside(path)]
        if not paths:
            return CONT
        number = len(self.trace.points)
        size = arguments[2] if name in ("write", "pwrite64") else 0
        self.trace.points.append(Point(name, os.path.relpath(paths[-1], self.inside), size))
        if self.watch:
            self._look(f"before {name} {paths[-1]}")
            self.in_call.add(thread)
        if self.stop is not None and number == self.stop.point:
            if not self.stop.half:
                self._kill(thread)
                return CONT
            registers[ARGUMENTS[2]] = size // 2
            self._set_registers(thread, registers)
            self.killing.add(thread)
        return SYSCALL if self.watch or thread in self.killing else CONT

    def _returned(self, thread: int) -> None:
        self.in_call.discard(thread)
        if thread in self.killing:
            self._kill(thread)
        elif self.watch and not self.in_call:
            self.before = _snapshot(self.inside)

    def _kill(self, thread: int) -> None:
        assert self.stop is not None, "only then"
        if self.stop.alone:
            os.kill(_process_of(thread), signal.SIGKILL)
        else:
            os.killpg(self.first, signal.SIGKILL)

    def _look(self, where: str) -> None:
        """Compare the folder with what the last point left; between two points nothing may change."""
        if self.in_call:  # Of two processes, the other one is changing something
            return
        now = _snapshot(self.inside)
        if self.before is not None and now != self.before:
            changed = sorted({path for path, *_ in now ^ self.before})
            self.trace.unseen.append(f"{where}: {', '.join(changed)}")
        self.before = now

    def _is_inside(self, path: str) -> bool:
        return path == self.inside or path.startswith(self.inside + "/")

    def _registers(self, thread: int) -> list[int]:
        buffer = ctypes.create_string_buffer(8 * REGISTERS)
        vector = _Iovec(ctypes.addressof(buffer), len(buffer.raw))
        libc.ptrace(GETREGSET, thread, PRSTATUS, ctypes.addressof(vector))
        return list(struct.unpack(f"{REGISTERS}Q", buffer.raw))

    def _set_registers(self, thread: int, registers: Sequence[int]) -> None:
        buffer = ctypes.create_string_buffer(struct.pack(f"{REGISTERS}Q", *registers), 8 * REGISTERS)
        vector = _Iovec(ctypes.addressof(buffer), 8 * REGISTERS)
        libc.ptrace(SETREGSET, thread, PRSTATUS, ctypes.addressof(vector))


def _paths(thread: int, name: str, arguments: Sequence[int]) -> list[str]:
    """Return the paths that a call names, by its arguments: `f` a file descriptor, `p` a path, `d` a folder before a path."""
    paths, folder = [], HERE
    for kind, value in zip(GIVEN[name], arguments, strict=False):
        if kind == "d":
            folder = struct.unpack("i", struct.pack("I", value & 0xFFFFFFFF))[0]
        elif kind == "f":
            paths.append(_opened(thread, value & 0xFFFFFFFF))
        elif kind == "p":
            base = _link(thread, "cwd") if folder == HERE else _opened(thread, folder)
            paths.append(os.path.normpath(os.path.join(base, _text(thread, value))))  # noqa: PTH118
            folder = HERE
    return paths


def _opened(thread: int, descriptor: int) -> str:
    return _link(thread, f"fd/{descriptor}").removesuffix(" (deleted)")


def _link(thread: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{thread}/{name}")  # noqa: PTH115
    except OSError:
        return ""


def _text(thread: int, address: int) -> str:
    """Return a text that ends with a zero byte, from another process's memory."""
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        data = b""
        while b"\0" not in data and len(data) < 4096:
            place = address + len(data)
            data += os.pread(memory, 4096 - place % 4096, place)  # Not over the end of a page
        return os.fsdecode(data.partition(b"\0")[0])
    except (OSError, OverflowError):
        return ""
    finally:
        os.close(memory)


def _process_of(thread: int) -> int:
    lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Tgid:"))


def _snapshot(folder: str) -> set[tuple[Any, ...]]:
    """Return each file and folder with what changes when it is changed."""
    found, left = set(), [folder]
    while left:
        for entry in os.scandir(left.pop()):
            stat = entry.stat(follow_symlinks=False)
            found.add((entry.path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode))
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.path)
    return found
