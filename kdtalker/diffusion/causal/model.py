"""Generate motion frame by frame with the causal motion network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.causal.network import CausalMotionNetwork
from kdtalker.diffusion.normalisation import Normalisation

_POSE_AND_SHIFT = slice(1, 7)  # of a motion vector


@dataclass(frozen=True)
class CausalState:
    """Hold a stream of motion between frames as a value: portrait (133,) and the last frame (70,), normalised; hidden
    (H,) of the recurrent layer, noise (N,) of the last frame; rest (70,), added to the motion at the end."""

    portrait: Array
    last: Array
    hidden: Array
    noise: Array
    rest: Array
    seed: int
    steps: int
    frame: int = 0
    finished: bool = False


@dataclass(frozen=True)
class CausalMotionModel:
    """Predict motion from features and its own history (implements the protocols MotionModel and SlidingModel): every
    frame is computed alone, by the same operations, however the features come."""

    network: CausalMotionNetwork
    normalisation: Normalisation
    space: str

    @property
    def latency_frames(self) -> int:
        return 0

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> CausalState:
        """Start a stream for a source. Raises InputError for another keypoint space, shapes that do not fit, or a
        negative seed."""
        config = self.network.config
        if reference.space != self.space:
            raise InputError(
                f"The motion model speaks the keypoint space '{self.space}', the portrait is in '{reference.space}'; "
                "choose a renderer and a model of the same space."
            )
        if seed < 0:
            raise InputError(f"The seed is {seed}, wanted 0 or more.")
        wanted = ((KEYPOINTS, 3), 1, (config.encoder.widths[-1],))
        found = (canonical.shape, len(reference), silence.shape)
        if found != wanted:
            raise InputError(f"A portrait's keypoints, motion and silence have the shapes {found}, wanted {wanted}.")
        rest = np.zeros(MOTION_WIDTH, np.float32)
        rest[_POSE_AND_SHIFT] = reference.vector()[0, _POSE_AND_SHIFT]
        first = self.normalisation.normalise(to_head_frame(reference).vector()[0] - rest)
        portrait = np.concatenate([self.normalisation.normalise_canonical(canonical.reshape(-1)), first])
        steps = sampling.steps or config.steps
        hidden, noise = np.zeros(config.hidden, np.float32), draw_noise(seed, 0, config.noise)
        return CausalState(portrait.astype(np.float32), first, hidden, noise, rest, seed, steps)

    def advance(self, state: CausalState, features: Array, *, last: bool = False) -> tuple[Motion, CausalState]:
        """Take features (T, C), T from 0; return the motion of these frames. Raises InputError for numbers that no face
        has, and for features of another size."""
        if state.finished:
            raise ValueError("This stream of motion has ended; start another.")
        width = self.network.config.encoder.widths[-1]
        if features.ndim != 2 or features.shape[1] != width:
            raise InputError(
                f"Audio features have the shape {features.shape}, wanted (frames, {width}); use the audio encoder in "
                "the student's own file."
            )
        frames = [np.zeros((0, MOTION_WIDTH), np.float32)]
        for feature in features:
            frame, state = self._next(state, np.asarray(feature, np.float32))
            frames.append(frame[None])
        motion = Motion.from_vector(self.normalisation.restore(np.concatenate(frames)) + state.rest, self.space)
        motion = from_head_frame(motion)
        motion.require_plausible("The motion model is damaged or another file: its motion")
        return motion, replace(state, finished=last)

    def slide(self, state: CausalState, features: Array) -> tuple[Motion, CausalState]:
        return self.advance(state, features)

    @torch.inference_mode()
    def _next(self, state: CausalState, feature: Array) -> tuple[Array, CausalState]:
        """Predict the next frame (70,), normalised; the scale is the source's throughout."""
        noise = next_noise(state.noise, state.seed, state.frame, self.network.config.noise_memory)
        feature_row, before, noise_row = (torch.from_numpy(one)[None, None] for one in (feature, state.last, noise))
        portrait, hidden = (torch.from_numpy(one)[None] for one in (state.portrait, state.hidden))
        outputs, after = self.network.trunk(feature_row, before, portrait, noise_row, hidden)
        frame: Array = self.network.predict(outputs[0, 0], state.steps)[0].numpy().copy()
        frame[0] = state.portrait[-MOTION_WIDTH]
        return frame, replace(state, last=frame, hidden=after[0].numpy(), noise=noise, frame=state.frame + 1)


def draw_noise(seed: int, frame: int, width: int) -> Array:
    """Draw standard normal noise (N,) of a frame, seeded by its number."""
    noise: Array = np.random.default_rng((seed, frame)).standard_normal(width, np.float32)
    return noise


def next_noise(noise: Array, seed: int, frame: int, memory: float) -> Array:
    """Advance the noise process (N,), an autoregression of variance 1, to a frame."""
    if frame == 0:
        return noise
    fresh = draw_noise(seed, frame, len(noise))
    return np.asarray(memory * noise + (1 - memory**2) ** 0.5 * fresh, np.float32)
