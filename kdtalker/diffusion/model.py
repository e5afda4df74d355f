"""Generate motion from audio features: the diffusion model, its checkpoint, and streaming window by window.

A stream of features is cut into windows of fixed size,
[context: clean known frames | overlap: predicted before, predicted again and blended | new frames],
so the motion depends on the features, the source and the seed, never on how the features arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.calibration import POSE_AND_SHIFT, Calibration
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.header import MotionHeader, read_motion_header
from kdtalker.diffusion.network import GraphDenoiser, MotionDenoiser
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sampler import sample_window
from kdtalker.diffusion.windows import (
    WindowState,
    blend_window,
    context_frames,
    emit_frames,
    is_ready,
    push_features,
    reference_token,
    sample_noise,
    window_features,
)

_DIVERGED = 1e18  # a motion vector with a number beyond this has diverged


@dataclass(frozen=True)
class DiffusionMotionModel:
    """Sample motion with a denoiser (implements the protocol MotionModel). normalisation: of its motion vectors and
    keypoints; space: the keypoint space; card: the model card, texts by name; calibration: of mouth and head, None
    where a model samples all numbers alike."""

    denoiser: MotionDenoiser
    normalisation: Normalisation
    space: str
    card: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def config(self) -> DenoiserConfig:
        return self.denoiser.config

    @property
    def latency_frames(self) -> int:
        return self.config.window - 1 - min(self.config.context, 1)  # the first window has one frame of context

    def save(self, path: Path, *, half: bool = True) -> None:
        """Write a model in torch as one safetensors file, matrices as float16 where `half`; all else stands in its
        header."""
        from kdtalker.diffusion.denoiser import Denoiser
        from kdtalker.weights.checkpoint import write_checkpoint

        assert isinstance(self.denoiser, Denoiser)
        header = {
            "space": self.space,
            "config": self.config.header(),
            "normalisation": self.normalisation.header(),
            "card": self.card,
        } | ({"calibration": self.calibration.header()} if self.calibration else {})
        write_checkpoint(path, self.denoiser.state_dict(), header, half=half)

    @staticmethod
    def load(path: Path) -> DiffusionMotionModel:
        """Read what `save` wrote in torch, ready to sample. Raises InputError for a missing, damaged or other file."""
        from kdtalker.diffusion.denoiser import load_denoiser

        header = read_motion_header(path)
        return DiffusionMotionModel._of(load_denoiser(path, header.config), header)

    @staticmethod
    def load_graph(path: Path) -> DiffusionMotionModel | None:
        """Read what `save` wrote, to run without torch; None where its architecture is another than that of the
        graph. Raises InputError as `load`."""
        header = read_motion_header(path)
        denoiser = GraphDenoiser.load(path, header.config)
        return None if denoiser is None else DiffusionMotionModel._of(denoiser, header)

    @staticmethod
    def _of(denoiser: MotionDenoiser, header: MotionHeader) -> DiffusionMotionModel:
        return DiffusionMotionModel(denoiser, header.normalisation, header.space, header.card, header.calibration)

    def offset(self, rest: Motion) -> Array:
        """Compute the offset (70,) of motion vectors: rest's pose and shift for relative models, else 0."""
        offset = np.zeros(MOTION_WIDTH, np.float32)
        if self.config.relative:
            offset[POSE_AND_SHIFT] = rest.vector()[0, POSE_AND_SHIFT]
        return offset

    def encode(self, vectors: Array, offset: Array) -> Array:
        """Normalise motion vectors (..., 70)."""
        return self.normalisation.normalise(vectors - offset)

    def decode(self, frames: Array, offset: Array) -> Motion:
        """Denormalise (T, 70) to Motion; relative models have the expression in the head's own axes. The head's gains
        apply around the source's own pose.

        Raises InputError for numbers beyond any motion."""
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = self.normalisation.restore(frames)
            if self.calibration is not None:
                vectors[:, POSE_AND_SHIFT] *= self.calibration.head_gain
            vectors = vectors + offset
        if not (np.abs(vectors) < _DIVERGED).all():
            raise InputError("The motion model gives numbers beyond any motion; it is damaged, choose another one.")
        motion = Motion.from_vector(vectors, self.space)
        return from_head_frame(motion) if self.config.relative else motion

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> WindowState:
        """Start a stream for a source: canonical (21, 3), its own motion (T=1), silence (C,) features of silence.
        A model with context frames continues from the source, silent until then.

        Raises InputError for another keypoint space, shapes that do not fit, or a negative seed.
        """
        if reference.space != self.space:
            raise InputError(
                f"The motion model speaks the keypoint space '{self.space}', "
                f"the portrait is in '{reference.space}'; "
                "choose a renderer and a model of the same space."
            )
        if seed < 0:
            raise InputError(f"The seed is {seed}, wanted 0 or more.")
        wanted = ((KEYPOINTS, 3), 1, (self.config.audio_input,))
        found = (canonical.shape, len(reference), silence.shape)
        if found != wanted:
            raise InputError(f"A portrait's keypoints, motion and silence have the shapes {found}, wanted {wanted}.")
        offset = self.offset(reference)
        reference = to_head_frame(reference) if self.config.relative else reference
        portrait = self.encode(reference.vector()[0], offset)
        silence = np.asarray(silence, np.float32)
        before = 1 if self.config.context else 0
        return WindowState(
            canonical=self.normalisation.normalise_canonical(canonical.reshape(-1)),
            reference=portrait,
            rest=offset,
            silence=silence,
            seed=seed,
            sampling=sampling,
            known=portrait[None][:before],
            tail=np.zeros((0, MOTION_WIDTH), np.float32),
            features=silence[None][:before],
        )

    def advance(self, state: WindowState, features: Array, *, last: bool = False) -> tuple[Motion, WindowState]:
        """Push features (n, C), n from 0; return the frames that became final. `last` ends the stream.

        Frames become final a window at a time, but for its `overlap` last ones; `last` fills the final window
        with silence and gives what is owed: in total as many frames as features. Raises InputError for numbers that
        no face has; a model in the middle of its training may make them (`advance_many`).
        """
        ((motion, state),) = self.advance_many([state], [features], last=last)
        motion.require_plausible("The motion model is damaged or another file: its motion")
        return motion, state

    def advance_many(
        self,
        states: Sequence[WindowState],
        features: Sequence[Array],
        *,
        last: bool = False,
    ) -> list[tuple[Motion, WindowState]]:
        """Advance several streams (clips or seeds, any lengths); windows of the same kind are sampled as one batch."""
        current = [push_features(state, new) for state, new in zip(states, features, strict=True)]
        final: list[list[Array]] = [[state.known[:0]] for state in current]
        while ready := [i for i, state in enumerate(current) if is_ready(self.config, state, last)]:
            kind = self._batch_key(current[ready[0]])
            group = [i for i in ready if self._batch_key(current[i]) == kind]
            predicted = self.sample([current[i] for i in group], self.config.window)
            for i, frames in zip(group, predicted, strict=True):
                emitted, current[i] = blend_window(self.config, current[i], frames)
                final[i].append(emitted)
        if last:
            for i, state in enumerate(current):
                final[i].append(state.tail)
                current[i] = replace(emit_frames(self.config, state, state.tail), tail=state.tail[:0], finished=True)
        parts = [np.concatenate(frames) for frames in final]
        return [(self.decode(part, state.rest), state) for part, state in zip(parts, current, strict=True)]

    def _batch_key(self, state: WindowState) -> tuple[int, Sampling]:
        """Return the batching key of a stream: context length and sampling settings."""
        return len(context_frames(self.config, state)), state.sampling

    def sample(self, states: list[WindowState], window: int) -> Array:
        """Sample the next window of each state, `window` frames with the context: (B, window - context, 70); relative
        models keep the source's scale."""
        config, calibration = self.config, self.calibration
        references = [reference_token(config, state) for state in states]
        noise = [
            sample_noise(state.seed, state.emitted, window - len(context_frames(config, state))) for state in states
        ]
        predicted = sample_window(
            self.denoiser,
            np.stack([state.canonical for state in states]),
            np.stack(references),
            np.stack([window_features(state, window) for state in states]),
            known=np.stack([context_frames(config, state) for state in states]),
            noise=np.stack(noise),
            sampling=states[0].sampling,
            mouth=None if calibration is None else calibration.mouth_matrix(self.normalisation.std),
            mouth_guidance=1.0 if calibration is None else float(calibration.mouth_guidance),
        )
        if config.relative:
            predicted[..., :1] = np.stack([state.reference[:1] for state in states])[:, None]
        return predicted
