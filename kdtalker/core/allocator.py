"""Tune glibc's allocator: how many arenas it has, and when it returns freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_ARENA_MAX = -8  # of mallopt(3)


def limit_arenas(count: int = 1) -> None:
    """Let all threads allocate from that many arenas. By default each new thread may take another one, of up to eight
    a core; every arena keeps holes of its own, so memory would depend on which thread ran where. Call before threads
    start; does nothing with other C libraries."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)


def return_freed_memory() -> None:
    """Return to the system what was freed, which glibc would keep for later."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
