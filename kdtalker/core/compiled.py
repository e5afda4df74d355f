"""Constants for code that numba compiles, where a float64 or a signed index among them would slow a loop down."""

from __future__ import annotations

from typing import Any

import numpy as np

Number = Any  # of whatever type an argument has; numba compiles a function for each


def single(value: float) -> Number:
    """Make a float32."""
    return np.float32(value)


def index(value: int) -> Number:
    """Make an unsigned index: a signed one might count from the end, which is tested wherever it is used."""
    return np.uint64(value)
