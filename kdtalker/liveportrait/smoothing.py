"""Smoothing of motion over time: the published model's Kalman smoother, and a filter for motion that is still coming.

Each number is a random walk seen through noise, on its own; float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.motion import Array, Motion
from kdtalker.pipeline import MotionModel

Series = NDArray[np.float64]

TRANSITION_VARIANCE, OBSERVATION_VARIANCE, INITIAL_VARIANCE = 0.05, 0.001, 1.0


class CausalFilter:
    """The smoother's forward half (Kalman 1960): each frame (C,) comes out as soon as it is known."""

    def __init__(self) -> None:
        self._mean: Series | None = None
        self.variance = INITIAL_VARIANCE

    def __call__(self, frame: Series) -> Series:
        if self._mean is None:
            self._mean = np.asarray(frame, np.float64)
        else:
            self.variance += TRANSITION_VARIANCE
        gain = self.variance / (self.variance + OBSERVATION_VARIANCE)
        self._mean = self._mean + gain * (frame - self._mean)
        self.variance *= 1 - gain
        return self._mean


def smooth(sequence: Series) -> Series:
    """(T, C) to (T, C), forward and backward (Rauch, Tung and Striebel 1965); the initial mean is the first frame."""
    means, variances = np.empty_like(sequence, np.float64), np.empty(len(sequence))
    forward = CausalFilter()
    for frame, value in enumerate(sequence):
        means[frame], variances[frame] = forward(value), forward.variance
    for frame in range(len(sequence) - 2, -1, -1):
        share = variances[frame] / (variances[frame] + TRANSITION_VARIANCE)
        means[frame] += share * (means[frame + 1] - means[frame])
    return means


@dataclass(frozen=True)
class SmoothedModel:
    """A motion model whose frames pass through the causal filter, all numbers but the scale, so that a film of live
    sound and one of a file are the same."""

    model: MotionModel

    def start(self, canonical: Array, reference: Motion, seed: int, silence: Array) -> tuple[Any, CausalFilter]:
        return self.model.start(canonical, reference, seed, silence), CausalFilter()

    def advance(
        self, state: tuple[Any, CausalFilter], features: Array, *, steps: int, guidance: float, last: bool
    ) -> tuple[Motion, tuple[Any, CausalFilter]]:
        window, causal = state[0], copy.copy(state[1])
        motion, window = self.model.advance(window, features, steps=steps, guidance=guidance, last=last)
        vector = motion.vector()
        for frame in vector:
            frame[1:] = causal(frame[1:])
        return Motion.from_vector(vector, motion.space), (window, causal)
