"""Smoothing of motion over time: the published model's Kalman smoother, and the same for motion that is still coming.

Each number is a random walk seen through noise, on its own; float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion
from kdtalker.core.protocols import MotionModel, Sampling, StateT

Series = NDArray[np.float64]

TRANSITION_VARIANCE, OBSERVATION_VARIANCE, INITIAL_VARIANCE = 0.05, 0.001, 1.0
LAG = 3  # frames


@dataclass(frozen=True)
class CausalFilter:
    """The smoother's forward half (Kalman 1960) as a value: the mean (C,) and variance after the frames so far."""

    mean: Series
    variance: float = INITIAL_VARIANCE

    def update(self, frame: Series) -> CausalFilter:
        """Take the next frame (C,)."""
        variance = self.variance + TRANSITION_VARIANCE
        return CausalFilter(self.mean, variance).correct(frame)

    def correct(self, frame: Series) -> CausalFilter:
        """Take an observation (C,) of the present frame."""
        gain = self.variance / (self.variance + OBSERVATION_VARIANCE)
        return CausalFilter(self.mean + gain * (frame - self.mean), self.variance * (1 - gain))


def filter_frame(before: CausalFilter | None, frame: Series) -> CausalFilter:
    """Filter the next frame (C,); the initial mean is the first frame."""
    frame = np.asarray(frame, np.float64)
    return CausalFilter(frame).correct(frame) if before is None else before.update(frame)


def smooth(sequence: Series) -> Series:
    """Smooth (T, C) forward and backward (Rauch, Tung and Striebel 1965)."""
    means, variances = np.empty_like(sequence, np.float64), np.empty(len(sequence))
    forward = None
    for frame, value in enumerate(sequence):
        forward = filter_frame(forward, value)
        means[frame], variances[frame] = forward.mean, forward.variance
    for frame in range(len(sequence) - 2, -1, -1):
        share = variances[frame] / (variances[frame] + TRANSITION_VARIANCE)
        means[frame] += share * (means[frame + 1] - means[frame])
    return means


@dataclass(frozen=True)
class Filtered:
    """A frame that passed the causal filter: its scale, which stays as it is, and the other numbers (69,)."""

    scale: float
    mean: Series
    variance: float

    def settled(self, later: Sequence[Filtered]) -> Array:
        """(70,) as the smoother's backward half leaves it, seen from the frames that follow."""
        mean = later[-1].mean if later else self.mean
        for before in reversed([self, *later[:-1]]):
            share = before.variance / (before.variance + TRANSITION_VARIANCE)
            mean = before.mean + share * (mean - before.mean)
        return np.asarray([self.scale, *mean], np.float32)


SmootherState = tuple[StateT, CausalFilter | None, tuple[Filtered, ...]]


@dataclass(frozen=True)
class SmoothedModel(Generic[StateT]):
    """A motion model whose frames come out smoothed, all numbers but the scale.

    A frame waits for the LAG frames after it instead of the film's end, so that live sound and a file make the same
    film in the same memory; of a later frame's surprise less than a millionth would come back so far.
    """

    model: MotionModel[StateT]

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> SmootherState[StateT]:
        return self.model.start(canonical, reference, silence, seed=seed, sampling=sampling), None, ()

    def advance(
        self, state: SmootherState[StateT], features: Array, *, last: bool = False
    ) -> tuple[Motion, SmootherState[StateT]]:
        window, causal, waiting = state
        motion, window = self.model.advance(window, features, last=last)
        for frame in motion.vector():
            causal = filter_frame(causal, frame[1:])
            waiting = (*waiting, Filtered(frame[0], causal.mean, causal.variance))
        ready = len(waiting) if last else max(0, len(waiting) - LAG)
        settled = [frame.settled(waiting[i + 1 : i + 1 + LAG]) for i, frame in enumerate(waiting[:ready])]
        vectors = np.stack(settled) if settled else motion.vector()[:0]
        return Motion.from_vector(vectors, motion.space), (window, causal, waiting[ready:])
