"""Procedural breathing: a function of the seed and the frame number alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.events import EventSchedule

BREATH_S, BREATH_SPREAD, BREATH_RANGE_S = 4.0, 0.2, (2.5, 6.5)  # period of a breath: median, log-deviation, range
INHALE_SHARE = 0.38  # share of a breath in which the chest rises


def breathing_curve(seed: int, start_frame: int, length: int) -> Array:
    """Compute the rise of the chest (length,) 0..1 from start_frame on: breaths of log-normal periods, in faster than
    out. Frame 0 is the end of a breath."""
    curve = np.zeros(length, np.float32)
    times_s = (start_frame + np.arange(length)) / FRAME_RATE_HZ
    end_s = (start_frame + length) / FRAME_RATE_HZ
    for begins_s, period_s in _known_breaths(seed).between(start_frame / FRAME_RATE_HZ, end_s):
        progress = (times_s - begins_s) / period_s
        inside = (progress >= 0) & (progress < 1)
        curve[inside] = np.minimum(
            smoothstep(progress / INHALE_SHARE), smoothstep((1 - progress) / (1 - INHALE_SHARE))
        )[inside]
    return curve


@lru_cache(maxsize=64)
def _known_breaths(seed: int) -> EventSchedule[float]:
    return EventSchedule(_breaths(seed))


def _breaths(seed: int) -> Iterator[tuple[float, float]]:
    """Yield for each breath the time at which it begins, and its duration, in s."""
    rng, begins_s = np.random.default_rng((seed, 3)), 0.0
    while True:
        period_s = float(np.clip(rng.lognormal(np.log(BREATH_S), BREATH_SPREAD), *BREATH_RANGE_S))
        yield begins_s, period_s
        begins_s += period_s
