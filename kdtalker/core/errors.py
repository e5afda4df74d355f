"""Errors for the user, each with its exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from reprlib import Repr

_SHORTENED = Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 60
_SHORTENED.maxlevel = 2
_MANY_FILES = "too many open files; raise the limit (ulimit -n)."

# Errors of the operating system that are no fault of a file or program that was named, and how they are told.
SHORTAGES = {
    errno.EMFILE: _MANY_FILES,
    errno.ENFILE: _MANY_FILES,
    errno.ENOMEM: "out of memory; close other programs, lift the memory limit (ulimit -v) or give a smaller picture.",
    errno.EAGAIN: "no further process can be started; raise the limit (ulimit -u).",
}


class KDTalkerError(Exception):
    """Carry one clear sentence for the user: what was found, what was wanted, what to do."""

    exit_code = 1


class InputError(KDTalkerError):
    """Report that the input or the call cannot be used as it is (exit code 2)."""

    exit_code = 2


class OutputError(KDTalkerError):
    """Report that the input was fine and the result could not be written (exit code 1)."""


def quote(value: object) -> str:
    """Format a value that was given for a sentence; the middle of a long one is left out."""
    return _SHORTENED.repr(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name that is nearest to this one, "" where none is near."""
    from difflib import get_close_matches

    spelled = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), spelled, n=1)
    return f" Did you mean '{spelled[near[0]]}'?" if near else ""
