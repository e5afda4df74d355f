"""Compile loops over pixels by numba, and constants for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit

PACKAGE = Path(__file__).parents[1]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Number = Any  # of whatever type an argument has; numba compiles a function for each


def kernel(**options: Any) -> Callable[[FunctionT], FunctionT]:
    """Compile a function by numba, with its options, to code that releases the GIL. It is kept on disk for the next
    process, where there is a folder that can be written."""
    forget_stale_code(PACKAGE)

    def compile_function(function: FunctionT) -> FunctionT:
        try:
            compiled: FunctionT = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no such folder: each process compiles anew
            compiled = njit(nogil=True, **options)(function)
        return compiled

    return compile_function


@cache
def forget_stale_code(package: Path) -> None:
    """Delete the code that numba kept where a source file beside it is newer. Kernels contain kernels and constants of
    other files, and numba itself looks only at the file of the outer one."""
    kept = list(package.rglob("__pycache__/*.nbi"))
    sources = {source for folder in {entry.parents[1] for entry in kept} for source in folder.glob("*.py")}
    newest = max((source.stat().st_mtime for source in sources), default=0.0)
    for entry in kept:
        try:
            if entry.stat().st_mtime < newest:
                entry.unlink()
        except OSError:  # another process was faster, or the folder is read-only and so are its sources
            continue


def single(value: float) -> Number:
    """Make a float32: a float64 among them would slow a loop down."""
    return np.float32(value)


def index(value: int) -> Number:
    """Make an unsigned index: a signed one might count from the end, which is tested wherever it is used."""
    return np.uint64(value)
