"""Kalman smoothing of motion: the published model's Rauch-Tung-Striebel smoother, and a fixed-lag one for streams.

Each number is an independent random walk with observation noise; float64.
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

TRANSITION_VARIANCE, OBSERVATION_VARIANCE, INITIAL_VARIANCE = 0.05, 0.001, 1.0  # of the random walk, as published
LAG = 3  # frames of look-ahead of the fixed-lag smoother


@dataclass(frozen=True)
class CausalFilter:
    """Hold the forward pass (Kalman 1960) as a value: mean (C,) and variance after the frames so far."""

    mean: Series
    variance: float = INITIAL_VARIANCE

    def update(self, frame: Series) -> CausalFilter:
        """Predict, then correct by the next frame (C,)."""
        variance = self.variance + TRANSITION_VARIANCE
        return CausalFilter(self.mean, variance).correct(frame)

    def correct(self, frame: Series) -> CausalFilter:
        """Correct by an observation (C,) of the present frame."""
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
class FilteredFrame:
    """Hold a frame after the forward pass: its scale, not to be smoothed, and mean (69,) and variance of the rest."""

    scale: float
    mean: Series
    variance: float

    def smooth(self, later: Sequence[FilteredFrame]) -> Array:
        """Run the backward pass from the frames that follow; return the smoothed frame (70,)."""
        mean = later[-1].mean if later else self.mean
        for before in reversed([self, *later[:-1]]):
            share = before.variance / (before.variance + TRANSITION_VARIANCE)
            mean = before.mean + share * (mean - before.mean)
        return np.asarray([self.scale, *mean], np.float32)


SmootherState = tuple[StateT, CausalFilter | None, tuple[FilteredFrame, ...]]


@dataclass(frozen=True)
class KalmanSmoothedModel(Generic[StateT]):
    """Smooth the frames of another motion model, all numbers but the scale; implements the same protocol.

    A fixed-lag smoother: a frame waits for the LAG frames after it instead of the end of the stream, so that live sound
    and a file give the same motion. The weight of later frames would be less than a millionth.
    """

    model: MotionModel[StateT]

    @property
    def latency_frames(self) -> int:
        return self.model.latency_frames + LAG

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> SmootherState[StateT]:
        return self.model.start(canonical, reference, silence, seed=seed, sampling=sampling), None, ()

    def advance(
        self, state: SmootherState[StateT], features: Array, *, last: bool = False
    ) -> tuple[Motion, SmootherState[StateT]]:
        """Advance the model and smooth its frames; at the end all frames that still waited are returned."""
        inner, causal, waiting = state
        motion, inner = self.model.advance(inner, features, last=last)
        for frame in motion.vector():
            causal = filter_frame(causal, frame[1:])
            waiting = (*waiting, FilteredFrame(frame[0], causal.mean, causal.variance))
        ready = len(waiting) if last else max(0, len(waiting) - LAG)
        smoothed = [frame.smooth(waiting[i + 1 : i + 1 + LAG]) for i, frame in enumerate(waiting[:ready])]
        vectors = np.stack(smoothed) if smoothed else motion.vector()[:0]
        return Motion.from_vector(vectors, motion.space), (inner, causal, waiting[ready:])
