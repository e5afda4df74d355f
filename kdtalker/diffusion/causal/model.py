"""Generate motion frame by frame with the causal motion network."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.causal.header import StudentConfig
from kdtalker.diffusion.causal.inference import MotionInference
from kdtalker.diffusion.causal.noise import Noise, advance_noise
from kdtalker.diffusion.fir_smoothing import HEAD_KERNEL, RADIUS
from kdtalker.diffusion.normalisation import Normalisation

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CausalState:
    """Hold a stream of motion between frames as a value: portrait (133,), normalised; last frames (2, 70) and hidden
    states (2, H) of the runs without and with noise; noise, (N,) twice, of the last frame; rest (70,), added to the
    motion at the end; heads (2 RADIUS, 6): pose and shift of the last frames before smoothing, none before the first or
    in films."""

    portrait: Array
    last: Array
    hidden: Array
    noise: Noise[Array]
    rest: Array
    heads: Array
    seed: int
    steps: int
    frame: int = 0
    finished: bool = False


@dataclass(frozen=True)
class CausalMotionModel:
    """Predict motion from features and its own history (implements the protocols MotionModel and SlidingModel): every
    frame is computed alone, by the same operations, however the features come. The network runs twice: expressions come
    from the run without noise, which disturbs lips, heads from the one with noise, which moves them."""

    network: MotionInference
    normalisation: Normalisation
    space: str

    @property
    def latency_frames(self) -> int:
        return 0

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> CausalState:
        """Start a stream for a source; silence is not needed, and of sampling no more steps than the student learned:
        what is asked beyond is logged. Raises InputError for another keypoint space, shapes that do not fit, or a
        negative seed."""
        config = self.network.config
        if reference.space != self.space:
            raise InputError(
                f"The motion model speaks the keypoint space '{self.space}', the portrait is in '{reference.space}'; "
                "choose a renderer and a model of the same space."
            )
        if seed < 0:
            raise InputError(f"The seed is {seed}, wanted 0 or more.")
        wanted, found = ((KEYPOINTS, 3), 1), (canonical.shape, len(reference))
        if found != wanted:
            raise InputError(f"A portrait's keypoints and motion have the shapes {found}, wanted {wanted}.")
        rest = np.zeros(MOTION_WIDTH, np.float32)
        rest[POSE_AND_SHIFT] = reference.vector()[0, POSE_AND_SHIFT]
        first = self.normalisation.normalise(to_head_frame(reference).vector()[0] - rest)
        portrait = np.concatenate([self.normalisation.normalise_canonical(canonical.reshape(-1)), first])
        steps = min(sampling.steps or config.steps, config.steps)
        if sampling.steps > config.steps or sampling.guidance != 1:
            _log.warning("This motion model is a student, no diffusion model: 'steps' and 'guidance' change nothing.")
        hidden, last = np.zeros((2, config.hidden), np.float32), np.stack([first, first])
        noise = np.zeros((2, config.noise), np.float32)
        none = np.zeros((0, 6), np.float32)
        return CausalState(portrait.astype(np.float32), last, hidden, (noise[0], noise[1]), rest, none, seed, steps)

    def advance(self, state: CausalState, features: Array, *, last: bool = False) -> tuple[Motion, CausalState]:
        """Take features (T, C), T from 0; return the motion of these frames. Raises InputError for numbers that no face
        has, and for features of another size."""
        frames, state = self._predict(state, features)
        return self._decode(frames, state), replace(state, finished=last)

    def slide(self, state: CausalState, features: Array) -> tuple[Motion, CausalState]:
        """Advance by the features (T, C) of frames that are played at once: of later ones nothing is known, so the head
        alone is smoothed, by the kernel of films over the frames so far."""
        frames, state = self._predict(state, features)
        if not len(frames):
            return self._decode(frames, state), state
        before = state.heads if len(state.heads) else np.repeat(frames[:1, POSE_AND_SHIFT], 2 * RADIUS, axis=0)
        heads = np.concatenate([before, frames[:, POSE_AND_SHIFT]])
        spans = np.lib.stride_tricks.sliding_window_view(heads, 2 * RADIUS + 1, axis=0)
        frames[:, POSE_AND_SHIFT] = spans @ HEAD_KERNEL
        return self._decode(frames, state), replace(state, heads=heads[-2 * RADIUS :])

    def _predict(self, state: CausalState, features: Array) -> tuple[Array, CausalState]:
        """Predict frames (T, 70), normalised, one after the other."""
        if state.finished:
            raise ValueError("This stream of motion has ended; start another.")
        width = self.network.config.encoder.widths[-1]
        if features.ndim != 2 or features.shape[1] != width:
            raise InputError(
                f"Audio features have the shape {features.shape}, wanted (frames, {width}); use the audio encoder in "
                "the student's own file."
            )
        frames = np.zeros((len(features), MOTION_WIDTH), np.float32)
        for place, feature in enumerate(features):
            frames[place], state = self._next(state, np.asarray(feature, np.float32))
        return frames, state

    def _decode(self, frames: Array, state: CausalState) -> Motion:
        """Denormalise frames (T, 70)."""
        motion = from_head_frame(Motion.from_vector(self.normalisation.restore(frames) + state.rest, self.space))
        motion.require_plausible("The motion model is damaged or another file: its motion")
        return motion

    def _next(self, state: CausalState, feature: Array) -> tuple[Array, CausalState]:
        """Predict the next frame (70,), normalised; the scale is the source's throughout."""
        noise = next_noise(state.noise, state.seed, state.frame, self.network.config)
        runs = zip(state.last, (np.zeros_like(noise[0]), noise[0]), state.hidden, strict=True)
        advance = self.network.advance
        hidden = np.stack([advance(feature, last, state.portrait, row, before) for last, row, before in runs])
        frames = np.stack([self.network.predict(one, state.steps) for one in hidden])
        frames[:, 0] = state.portrait[-MOTION_WIDTH]
        after = replace(state, last=frames, hidden=hidden, noise=noise, frame=state.frame + 1)
        frame = frames[0].copy()
        frame[POSE_AND_SHIFT] = frames[1, POSE_AND_SHIFT]
        return frame, after


def next_noise(before: Noise[Array], seed: int, frame: int, config: StudentConfig) -> Noise[Array]:
    """Draw the noise of a frame, (N,) twice, seeded by its number, after that of the frame before."""
    white = np.random.default_rng((seed, frame)).standard_normal(config.noise, np.float32)
    return advance_noise(before, white, config.noise_memory)
