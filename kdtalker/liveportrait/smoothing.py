"""Smoothing of motion over time: the published model's Kalman smoother, and the same for motion that is still coming.

Each number is a random walk seen through noise, on its own; float64.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.motion import Array, Motion
from kdtalker.pipeline import MotionModel

Series = NDArray[np.float64]

TRANSITION_VARIANCE, OBSERVATION_VARIANCE, INITIAL_VARIANCE = 0.05, 0.001, 1.0
LAG = 3  # frames


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


@dataclass(frozen=True)
class SmoothedModel:
    """A motion model whose frames come out smoothed, all numbers but the scale.

    A frame waits for the LAG frames after it instead of the film's end, so that live sound and a file make the same
    film in the same memory; of a later frame's surprise less than a millionth would come back so far.
    """

    model: MotionModel

    def start(
        self, canonical: Array, reference: Motion, seed: int, silence: Array
    ) -> tuple[Any, CausalFilter, list[Filtered]]:
        return self.model.start(canonical, reference, seed, silence), CausalFilter(), []

    def advance(
        self,
        state: tuple[Any, CausalFilter, list[Filtered]],
        features: Array,
        *,
        steps: int,
        guidance: float,
        last: bool,
    ) -> tuple[Motion, tuple[Any, CausalFilter, list[Filtered]]]:
        window, causal, waiting = state[0], copy.copy(state[1]), list(state[2])
        motion, window = self.model.advance(window, features, steps=steps, guidance=guidance, last=last)
        for frame in motion.vector():
            waiting.append(Filtered(frame[0], causal(frame[1:]), causal.variance))
        ready = len(waiting) if last else max(0, len(waiting) - LAG)
        settled = [frame.settled(waiting[i + 1 : i + 1 + LAG]) for i, frame in enumerate(waiting[:ready])]
        vectors = np.stack(settled) if settled else motion.vector()[:0]
        return Motion.from_vector(vectors, motion.space), (window, causal, waiting[ready:])
