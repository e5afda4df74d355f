"""Symmetric binomial FIR smoothing of the motion stream (zero phase, latency 3 frames): removes tracker jitter that
the model learned from its training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.core.protocols import MotionModel, Sampling, StateT

RADIUS = 3  # frames to both sides that the kernels span, and the latency
HEAD_KERNEL = np.array([1, 6, 15, 20, 15, 6, 1], np.float32) / 64  # binomial, for scale, pose and shift
EXPRESSION_KERNEL = np.array([0, 0, 1, 2, 1, 0, 0], np.float32) / 4  # shorter, because lips are fast
_WEIGHTS = np.stack([HEAD_KERNEL] * 7 + [EXPRESSION_KERNEL] * (MOTION_WIDTH - 7), axis=1)  # (7, 70)


@dataclass(frozen=True)
class FIRSmoothedModel(Generic[StateT]):
    """Smooth the frames of another motion model; implements the same protocol."""

    model: MotionModel[StateT]

    @property
    def latency_frames(self) -> int:
        return self.model.latency_frames + RADIUS

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> tuple[StateT, Array]:
        inner = self.model.start(canonical, reference, silence, seed=seed, sampling=sampling)
        return inner, np.empty((0, MOTION_WIDTH), np.float32)

    def advance(
        self, state: tuple[StateT, Array], features: Array, *, last: bool = False
    ) -> tuple[Motion, tuple[StateT, Array]]:
        """Advance the model and smooth its frames; the state also holds the frames (N, 70) still under the kernels."""
        inner, recent = state
        motion, inner = self.model.advance(inner, features, last=last)
        frames = motion.vector()
        if not len(recent):
            recent = np.repeat(frames[:1], RADIUS, axis=0)  # pad by repeating the edge frame
        recent = np.concatenate([recent, frames])
        if last:
            recent = np.concatenate([recent, np.repeat(recent[-1:], RADIUS, axis=0)])
        smoothed = smooth(recent)
        return Motion.from_vector(smoothed, motion.space), (inner, recent[len(smoothed) :])


def smooth(vectors: Array) -> Array:
    """Smooth motion vectors (T, 70) by the kernels: (T - 2 RADIUS, 70), empty where there are fewer."""
    count = max(0, len(vectors) - 2 * RADIUS)
    smoothed = np.zeros((count, MOTION_WIDTH), np.float32)
    for shift, weights in enumerate(_WEIGHTS):
        smoothed += weights * vectors[shift : shift + count]
    return smoothed
