"""Errors that a user can mend; the command line prints them as one line and exits with code 2."""


class GrasplError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to mend it."""


class NonFiniteAdapterError(GrasplError):
    """A LoRA factor holds NaN or inf; the message names the site."""
