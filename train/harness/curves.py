"""Compare curves over time: lag alignment, Pearson correlation, best lag; RMS loudness."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count

DEFAULT_MAX_LAG_FRAMES = 6
MIN_CURVE_NORM = 1e-6  # a curve whose norm around its mean lies below this counts as constant

RowsT = TypeVar("RowsT", bound="NDArray[np.floating]")
OtherRowsT = TypeVar("OtherRowsT", bound="NDArray[np.floating]")


def shift_by_lag(late: RowsT, early: OtherRowsT, lag: int) -> tuple[RowsT, OtherRowsT]:
    """Cut two series (T, ...) so that row t + lag of the first stands beside row t of the second."""
    length = min(len(late), len(early))
    start, end = max(0, lag), max(0, -lag)
    return late[start : length - end], early[end : length - start]  # type: ignore[return-value]


def correlation(one: NDArray[np.floating], other: NDArray[np.floating], lag: int = 0) -> float:
    """Compute Pearson's r of two curves, the first `lag` frames later than the second; 0 where one is constant."""
    if min(len(one), len(other)) - abs(lag) < 2:
        return 0.0
    first, second = shift_by_lag(one, other, lag)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / size if size > MIN_CURVE_NORM**2 else 0.0


def best_lag(one: Array, other: Array, max_lag: int = DEFAULT_MAX_LAG_FRAMES) -> int:
    """Find the lag in frames of the first curve behind the second that maximises their correlation."""
    lags = sorted(range(-max_lag, max_lag + 1), key=abs)
    return max(lags, key=lambda lag: correlation(one, other, lag))


def rms_loudness(samples: Array) -> Array:
    """Compute the root mean square (T,) of sound (N,) in each frame at 25 fps, the last one padded with silence."""
    frames = frame_count(len(samples))
    padded = np.pad(samples, (0, frames * SAMPLES_PER_FRAME - len(samples)))
    rms: Array = np.sqrt((padded.reshape(frames, SAMPLES_PER_FRAME) ** 2).mean(1))
    return rms


def log_loudness(samples: Array) -> Array:
    """Compute the natural logarithm (T,) of the RMS loudness, floored by 1e-3."""
    logarithm: Array = np.log(rms_loudness(samples) + 1e-3)
    return logarithm
