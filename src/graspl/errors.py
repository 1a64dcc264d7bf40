"""Errors that a user can fix; the command line prints them as one line and exits with code 2."""

import errno
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # What the system says where a file does not fit


class GrasplError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to fix it."""


class NonFiniteAdapterError(GrasplError):
    """A LoRA factor holds NaN or inf; the message names the site."""


class TooFewQuestionsError(GrasplError):
    """The base model writes no questions like the task's, or the same few again and again."""


TURNS = (
    "LRE",
    "RLE",
    "LRO",
    "RLO",
    "PDF",
    "LRI",
    "RLI",
    "FSI",
    "PDI",
)  # Classes of marks that turn the direction
REASON = 300  # Characters of a library's message that one line shows


@contextmanager
def foreign(what: str | Path, problem: str, fix: str) -> Iterator[None]:
    """Turn whatever a library raises within the block, on a file that others made, into one line.

    Libraries document few of the errors that broken files bring about. Only their calls belong in the block: an error of
    graspl's own code would be told as the user's.

    Args:
        what: the file, or the option that names it.
        problem: what cannot be done with it, e.g. `cannot be read`.
        fix: what the user can do about it.

    Raises:
        GrasplError: anything was raised but an interrupt and the end of the process.
    """
    try:
        yield
    except GrasplError:
        raise
    except BaseException as error:
        # A panic of Rust code is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise GrasplError(f"{what}: {problem} ({reason_of(error)}); {fix}") from error


def reason_of(error: BaseException) -> str:
    """Return what an error says in one line that is not too long, or its kind where it says nothing."""
    told = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecursionError):
        told = "it is nested too deeply"
    return told if len(told) <= REASON else f"{told[:REASON]}..."


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal may act on or fail at, but for line breaks.

    These are control characters, marks that turn the direction of writing, and halves of characters.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(each: str) -> str:
    acts = unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(each) in TURNS
    return ascii(each)[1:-1] if acts and each != "\n" else each


def users_mistake(error: BaseException) -> str | None:
    """Return the message of the first error in the chain that the user can fix."""
    from jsonargparse import ArgumentError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, GrasplError):
            return str(seen)
        if isinstance(seen, OSError) and seen.errno in FULL:
            where = seen.filename or "the run folder"
            return f"{where}: {seen.strerror}; free some space, then go on with the same command and --ckpt_path last"
        seen = seen.__cause__ or seen.__context__
    return shorten(str(error)) if isinstance(error, ArgumentError) else None


# What jsonargparse says of the types that an option could have had besides, where one is named and wrong.
NOISE = ("Expected a <class 'NoneType'>", "Expected an instantiatable class, but")

# How it begins to list them.
UNION = re.compile(r"(- )?Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ")


def shorten(message: str) -> str:
    """Return a message in one line. Where jsonargparse lists all types that it tried, keep what is wrong with the value."""
    message, unions = UNION.subn("- ", " ".join(message.split()))
    before, found, rest = message.partition("Problem with given class_path")
    if not found and not unions:
        return message
    key = before.partition(":")[0].strip(" -")  # Parser key "model"
    if found:
        message = f"{key}: {found}{rest}" if key else f"{found}{rest}"
    tried = message.partition(" Given value type:")[0].split(" - ")
    told = dict.fromkeys(each for each in tried if not each.startswith(NOISE))
    return " - ".join(told).replace(": - ", ": ")
