"""Procedural breathing: a function of the seed and the frame number alone."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.rates import FRAME_RATE_HZ

BREATH_S, BREATH_SPREAD, BREATH_RANGE_S = 4.0, 0.2, (2.5, 6.5)  # period of a breath: median, log-deviation, range
INHALE_SHARE = 0.38  # share of a breath in which the chest rises


def breathing_curve(seed: int, start_frame: int, length: int) -> Array:
    """Compute the rise of the chest (length,) 0..1 from start_frame on: breaths of log-normal periods, in faster than
    out. Frame 0 is the end of a breath."""
    curve = np.zeros(length, np.float32)
    times_s = (start_frame + np.arange(length)) / FRAME_RATE_HZ
    rng, begins_s = np.random.default_rng((seed, 3)), 0.0
    while begins_s <= (start_frame + length) / FRAME_RATE_HZ:
        period_s = float(np.clip(rng.lognormal(np.log(BREATH_S), BREATH_SPREAD), *BREATH_RANGE_S))
        if begins_s + period_s <= start_frame / FRAME_RATE_HZ:  # a breath before the first frame
            begins_s += period_s
            continue
        progress = (times_s - begins_s) / period_s
        inside = (progress >= 0) & (progress < 1)
        curve[inside] = np.minimum(
            smoothstep(progress / INHALE_SHARE), smoothstep((1 - progress) / (1 - INHALE_SHARE))
        )[inside]
        begins_s += period_s
    return curve
