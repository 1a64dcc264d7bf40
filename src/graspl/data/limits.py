"""A foreign chat template is tried out in a process of its own, under limits of time and memory.

A template is a program. Jinja's sandbox keeps it from files and from Python, but not from running for ever or filling the
memory.
"""

import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from graspl.errors import GrasplError

SECONDS = 10  # Of a few turns, which take milliseconds
MEMORY = 2**30  # Bytes beyond what the process has
TOO_MUCH = 3  # Exit code
_TRIED: dict[str, str | None] = {}  # Which limit each chat template breaks that this process has tried out


def try_out(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a chat template that takes too long or too much memory for a few turns; each is tried once a process.

    Raises:
        GrasplError: it does; an error that it raises is left to whoever uses it.
    """
    name = repr(tokenizer.chat_template)
    if name not in _TRIED:
        turns = [{"role": role, "content": "Is it so?"} for role in ("user", "assistant", "user")]
        _TRIED[name] = over_limits(lambda: tokenizer.apply_chat_template(turns, tokenize=False))
    if _TRIED[name] is not None:
        raise GrasplError(
            f"base_model: the chat template of {tokenizer.name_or_path} {_TRIED[name]}; give a tokenizer with another"
        )


def over_limits(work: Callable[[], object]) -> str | None:
    """Return which limit some work of pure Python breaks, in words; None where it ends in time, well or not.

    It is done in a copy of this process. Where processes cannot be copied (Windows), nothing is tried.
    """
    if not hasattr(os, "fork"):
        return None
    ended, open_while_it_runs = os.pipe()
    with warnings.catch_warnings():
        # Threads of libraries are no concern: the copy runs Python alone, and leaves without their clean-up
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _do(work)
    os.close(open_while_it_runs)
    in_time = bool(select.select([ended], [], [], SECONDS)[0])
    os.close(ended)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not in_time or code == -signal.SIGXCPU:
        return f"does not end within {SECONDS} seconds"
    if code == TOO_MUCH:
        return f"takes more than {MEMORY // 2**20} MiB of memory"
    return None if code == 0 else f"ends the process that tries it out ({code})"


def _do(work: Callable[[], object]) -> None:
    """Do the work under the limits, and end this process."""
    import resource

    code = 0
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        _limit_memory()
        work()
    except MemoryError:
        code = TOO_MUCH
    except BaseException:  # noqa: BLE001 - what it raises, it raises here again, where it is told
        code = 0
    finally:
        os._exit(code)


def _limit_memory() -> None:
    import resource

    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        with suppress(ValueError, OSError):  # A lower limit stands already
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    else:  # macOS has the limit and does not hold it
        threading.Thread(target=_watch, args=(_most_so_far(),), daemon=True).start()


def _watch(before: int) -> None:
    while _most_so_far() - before < MEMORY:
        time.sleep(0.02)
    os._exit(TOO_MUCH)


def _most_so_far() -> int:
    """Return the most memory that this process has had, in bytes as macOS counts it."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
