"""Errors that a user can fix; the command line prints them as one line and exits with code 2."""

import errno
import re

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # What the system says where a file does not fit


class GrasplError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to fix it."""


class NonFiniteAdapterError(GrasplError):
    """A LoRA factor holds NaN or inf; the message names the site."""


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
