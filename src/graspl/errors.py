"""Errors that a user can mend; the command line prints them as one line and exits with code 2."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file does not fit."""


class GrasplError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to mend it."""


class NonFiniteAdapterError(GrasplError):
    """A LoRA factor holds NaN or inf; the message names the site."""


def users_mistake(error: BaseException) -> str | None:
    """Return the message of the first error in the chain that the user can mend."""
    from jsonargparse import ArgumentError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, GrasplError):
            return str(seen)
        if isinstance(seen, OSError) and seen.errno in FULL:
            where = seen.filename or "the run folder"
            return f"{where}: {seen.strerror}; free some space, then go on with the same command and --ckpt_path last"
        seen = seen.__cause__ or seen.__context__
    return _shorten(str(error)) if isinstance(error, ArgumentError) else None


def _shorten(message: str) -> str:
    """Keep of jsonargparse's list of all that was tried what went wrong with the class that the user named."""
    message = " ".join(message.split())
    key, found, rest = message.partition("Problem with given class_path")
    if not found:
        return message
    key = key.partition(":")[0]  # Parser key "model"
    for noise in (" - Expected a <class 'NoneType'>", " Given value type:"):
        rest = rest.partition(noise)[0]
    return f"{key}: {found}{rest}"
