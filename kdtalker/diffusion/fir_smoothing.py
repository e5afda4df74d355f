"""Motion without the tremor of the tracked films that the model learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.core.protocols import MotionModel, Sampling, StateT

REACH = 3  # frames to both sides that a frame is averaged over, and by which it comes out later
HEAD = np.array([1, 6, 15, 20, 15, 6, 1], np.float32) / 64  # binomial: pose and shift
FACE = np.array([0, 0, 1, 2, 1, 0, 0], np.float32) / 4  # lips are fast
_WEIGHTS = np.concatenate([np.tile(HEAD, (7, 1)), np.tile(FACE, (MOTION_WIDTH - 7, 1))]).T  # (7, 70)


@dataclass(frozen=True)
class SteadyModel(Generic[StateT]):
    """A motion model whose frames are averaged with their neighbours, symmetrically, so that nothing comes late."""

    model: MotionModel[StateT]

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> tuple[StateT, Array]:
        window = self.model.start(canonical, reference, silence, seed=seed, sampling=sampling)
        return window, np.empty((0, MOTION_WIDTH), np.float32)

    def advance(
        self, state: tuple[StateT, Array], features: Array, *, last: bool = False
    ) -> tuple[Motion, tuple[StateT, Array]]:
        """As the model's own; state holds, beside the model's, the frames that those to come are averaged with."""
        window, near = state
        motion, window = self.model.advance(window, features, last=last)
        frames = motion.vector()
        if not len(near):
            near = np.repeat(frames[:1], REACH, axis=0)  # ends count as if they went on
        near = np.concatenate([near, frames])
        if last:
            near = np.concatenate([near, np.repeat(near[-1:], REACH, axis=0)])
        count = max(0, len(near) - 2 * REACH)
        steadied = np.zeros((count, MOTION_WIDTH), np.float32)
        for shift, weights in enumerate(_WEIGHTS):
            steadied += weights * near[shift : shift + count]
        return Motion.from_vector(steadied, motion.space), (window, near[count:])
