"""Contenders in processes of their own, each of which does a step while the others wait.

A machine that others use is now slow, now quick, for minutes on end. Contenders that run one after another meet different
machines; those that take turns step by step meet the same, and no two of them ever share it.
"""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import torch

WARM_UP = 3


class Clock:
    """Times each step after the first few, from the moment its turn begins."""

    hand_over: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    """Lets the next contender do a step, and returns when it is this one's turn again."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.seconds: list[float] = []
        self._steps, self._last = 0, _now()

    def step(self, tokens: int) -> None:
        """A step has ended, with its tokens."""
        seconds = _now() - self._last
        if self._steps >= WARM_UP:
            self.tokens.append(tokens)
            self.seconds.append(seconds)
        self._steps += 1
        Clock.hand_over()
        self._last = _now()


def _now() -> float:
    """Return seconds: of the clock on a GPU, else of this process, which other processes take less from."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def race(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Return what each contender returned in each round; each starts when its first turn comes, in a process of its own.

    Raises ``SystemExit`` when one of them ends without an answer; what it said is above.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for name, contender in contenders.items():
            pipes[name], theirs = spawn.Pipe()
            # No daemons: a contender may have processes of its own
            processes.append(spawn.Process(target=_contend, args=(theirs, contender, rounds)))
            processes[-1].start()
            theirs.close()
        return _turns(pipes)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _turns(pipes: dict[str, Any]) -> dict[str, list[Any]]:
    """Give turns, to and fro, until the last has its answer."""
    found: dict[str, list[Any]] = {}
    order = list(pipes)
    while len(found) < len(pipes):
        order.reverse()
        for name in [name for name in order if name not in found]:
            pipes[name].send(None)
            try:
                answer = pipes[name].recv()
            except EOFError:
                raise SystemExit(f"{name}: ended without an answer") from None
            if answer is not None:
                found[name] = answer
    return found


def _contend(pipe: Connection, contender: Callable[[], Any], rounds: int) -> None:
    """Run a contender several times, as its turns allow."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # those that wait for others count as busy

    def hand_over() -> None:
        pipe.send(None)
        pipe.recv()

    Clock.hand_over = staticmethod(hand_over)
    pipe.recv()
    pipe.send([contender() for _ in range(rounds)])
