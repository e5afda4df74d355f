"""Procedural blinks and gaze: functions of the seed, the frame number and the head pose alone, so that a film does not
depend on the pieces it is made in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.events import EventSchedule

GAP_SPREAD, LEAST_GAP_S = 0.5, 0.5  # gaps between blinks: log-deviation, and minimum
# Duration of a spontaneous blink, median, log-deviation and range; share of it in which lids close; how long they stay
# shut: some 260 ms, of which 80 close, 15 stay shut and twice as many open (Doane 1980; VanderWerf et al. 2003).
BLINK_S, BLINK_SPREAD, BLINK_RANGE_S = 0.25, 0.25, (0.12, 0.4)
CLOSING_SHARE, SHUT_S = 0.33, 0.03
DOUBLE_SHARE, DOUBLE_REST_S = 0.08, (0.15, 0.3)  # share of blinks that are followed by another, after so long a rest

# For --gaze camera and free: standard deviation of the fixation target in degrees of yaw and pitch; duration of a
# fixation, median and log-deviation; gain of the vestibulo-ocular reflex, which compensates head rotation.
SACCADES = {
    "camera": ((1.1, 0.7), 0.9, 0.6, 1.0),
    "free": ((6.0, 3.0), 1.1, 0.6, 0.7),
}
MIN_FIXATION_S = 0.16  # the shortest fixation between two saccades


def blink_curve(seed: int, blinks_per_minute: float, start_frame: int, length: int) -> Array:
    """Compute the lid closure (length,) 0..1 from start_frame on: blinks at log-normal gaps, some of them double,
    each one closing faster than it opens."""
    shut = np.zeros(length, np.float32)
    times_s = (start_frame + np.arange(length)) / FRAME_RATE_HZ
    end_s = (start_frame + length) / FRAME_RATE_HZ + BLINK_RANGE_S[1]
    for middle_s, blink_s in _known_blinks(seed, blinks_per_minute).between(start_frame / FRAME_RATE_HZ - 1, end_s):
        shut = np.maximum(shut, _blink((times_s - middle_s).astype(np.float32), blink_s))
    return shut


@lru_cache(maxsize=64)
def _known_blinks(seed: int, a_minute: float) -> EventSchedule[float]:
    return EventSchedule(_blinks(seed, a_minute))


@lru_cache(maxsize=64)
def _known_fixations(kind: str, seed: int) -> EventSchedule[NDArray[np.float64]]:
    return EventSchedule(_fixations(kind, seed))


def _fixations(kind: str, seed: int) -> Iterator[tuple[float, NDArray[np.float64]]]:
    """Yield for each fixation the frame in which it begins and its target (2,), yaw and pitch in degrees."""
    deviation, rest_s, spread, _ = SACCADES[kind]
    rng = np.random.default_rng((seed, 2))
    begins, target = 0, np.zeros(2)
    while True:
        yield begins, target
        begins += round(max(MIN_FIXATION_S, rng.lognormal(np.log(rest_s), spread)) * FRAME_RATE_HZ)
        target = rng.standard_normal(2) * deviation


def _blinks(seed: int, a_minute: float) -> Iterator[tuple[float, float]]:
    """Yield for each blink the time at which the lids meet, on the grid of frames, and its duration, in s."""
    if a_minute == 0:
        return
    rng = np.random.default_rng((seed, 1))
    median_s = 60 / a_minute * (1 + DOUBLE_SHARE) / np.exp(GAP_SPREAD**2 / 2)
    time_s, blink_s, is_double = 0.0, 0.0, False
    while True:
        if is_double:
            time_s += blink_s + rng.uniform(*DOUBLE_REST_S)
        else:
            time_s += max(LEAST_GAP_S, rng.lognormal(np.log(median_s), GAP_SPREAD))
        blink_s = float(np.clip(rng.lognormal(np.log(BLINK_S), BLINK_SPREAD), *BLINK_RANGE_S))
        is_double = not is_double and rng.random() < DOUBLE_SHARE
        yield round(time_s * FRAME_RATE_HZ) / FRAME_RATE_HZ, blink_s


def _blink(after_s: Array, blink_s: float) -> Array:
    """Compute the lid closure of one blink, by the time after the lids meet, in s."""
    moving_s = blink_s - SHUT_S
    closing_s, opening_s = CLOSING_SHARE * moving_s, (1 - CLOSING_SHARE) * moving_s
    return 1 - smoothstep(np.maximum(-after_s / closing_s, (after_s - SHUT_S) / opening_s))


def gaze(kind: str, seed: int, start_frame: int, away: Array) -> Array:
    """Compute gaze (T, 2), yaw and pitch in degrees: fixations and saccades around the camera ("camera") or around the
    head's direction ("free"). away (T, 2): rotation of the head from the source pose, which the eyes compensate."""
    frames = start_frame + np.arange(len(away))
    targets = np.zeros((len(away), 2))
    for begins, target in _known_fixations(kind, seed).between(start_frame, start_frame + len(away) + 1):
        targets[frames == begins - 1] += (target - targets[frames == begins - 1]) / 3  # one frame on the way
        targets[frames >= begins] = target
    return np.asarray(targets - SACCADES[kind][3] * away, np.float32)
