"""Tune the allocator of glibc: its number of arenas, and when it returns freed memory. Others stay as they are."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_M_ARENA_MAX = -8  # of mallopt(3)


def share_one_arena() -> None:
    """Let all threads allocate from one arena, unless MALLOC_ARENA_MAX says otherwise. By default each new thread may
    take another one, of up to eight a core; every arena keeps holes of its own, so memory would depend on which thread
    ran where. Call before threads start."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        _call("mallopt", _M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return to the system what was freed, which glibc would keep for later."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
