"""Curves of a film over time, compared: correlation, and which one is late."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array

LARGEST_LAG_FRAMES = 6
LEAST_LENGTH = 1e-6  # of a curve around its mean; below it never changes


def correlation(one: Array, other: Array, lag: int = 0) -> float:
    """Pearson's, of two curves, the first `lag` frames later than the second; 0 where one of them never changes."""
    length = min(len(one), len(other))
    late, early = max(0, lag), max(0, -lag)
    if length - late - early < 2:
        return 0.0
    first, second = one[late : length - early], other[early : length - late]
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / size if size > LEAST_LENGTH**2 else 0.0


def best_lag(one: Array, other: Array, largest: int = LARGEST_LAG_FRAMES) -> int:
    """By how many frames the first curve is later than the second, where they agree most."""
    lags = sorted(range(-largest, largest + 1), key=abs)
    return max(lags, key=lambda lag: correlation(one, other, lag))
