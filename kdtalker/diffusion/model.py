"""From audio features to motion: the motion model with its checkpoint, and windows that follow one another.

A stream of features is cut into windows of fixed size,
[context: clean known frames | overlap: predicted before, predicted again and blended | new frames],
so the motion depends on the features, the portrait and the seed, never on how the features arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sampler import sample_window
from kdtalker.diffusion.windows import (
    WindowState,
    _absorb,
    _context,
    _emit,
    _is_ready,
    _noise,
    _push,
    _reference,
    _window_features,
)
from kdtalker.weights.checkpoint import read_checkpoint, write_checkpoint
from kdtalker.weights.header import tensor_shapes

_DIVERGED = 1e18  # of a motion vector's numbers

_HELD = slice(1, 7)  # pose and shift in the motion vector: relative models take them minus the portrait's own


@dataclass(frozen=True)
class MotionModel:
    """A denoiser with what its numbers mean: normalisation, keypoint space, and a card for people to read."""

    denoiser: Denoiser
    normalisation: Normalisation
    space: str
    card: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> DenoiserConfig:
        return self.denoiser.config

    def save(self, path: Path, *, half: bool = True) -> None:
        """Write one safetensors file, matrices as float16 where `half`; all else stands in its header."""
        header = {
            "space": self.space,
            "config": self.config.header(),
            "normalisation": self.normalisation.header(),
            "card": self.card,
        }
        write_checkpoint(path, self.denoiser.state_dict(), header, half=half)

    @staticmethod
    def load(path: Path) -> MotionModel:
        """Read what `save` wrote, ready to sample. Raises InputError for a missing, damaged or other file."""
        header = read_motion_header(path)
        with torch.device("meta"):
            denoiser = Denoiser(header.config)
        wanted = {name: tuple(value.shape) for name, value in denoiser.state_dict().items()}
        found = tensor_shapes(path)
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise InputError(
                    f"'{path}' does not fit its own header: "
                    f"{name} has the shape {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}; "
                    "download or train the model again."
                )
        _, state = read_checkpoint(path, ())
        denoiser.load_state_dict(state, strict=True, assign=True)
        return MotionModel(denoiser.eval().requires_grad_(False), header.normalisation, header.space, header.card)

    def offset(self, rest: Motion) -> Array:
        """(70,): what is taken from motion vectors before the model sees them: rest's pose and shift or 0."""
        offset = np.zeros(MOTION_WIDTH, np.float32)
        if self.config.relative:
            offset[_HELD] = rest.vector()[0, _HELD]
        return offset

    def encode(self, vectors: Array, offset: Array) -> Array:
        """Motion vectors (..., 70) to the network's normalised units."""
        return self.normalisation.normalise(vectors - offset)

    def decode(self, frames: Array, offset: Array) -> Motion:
        """(T, 70) in the network's units to Motion; relative models think of the face in the head's own axes."""
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = self.normalisation.restore(frames) + offset
        if not (np.abs(vectors) < _DIVERGED).all():
            raise InputError("The motion model gives numbers beyond any motion; it is damaged, choose another one.")
        motion = Motion.from_vector(vectors, self.space)
        return from_head_frame(motion) if self.config.relative else motion

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> WindowState:
        """Begin a stream for a portrait: canonical (21, 3), its own motion (T=1), silence (C,) features of silence.
        A model that continues from known frames continues from the portrait, silent until then.

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
        """Push features (n, C), n from 0; returns the frames that became final. `last` ends the stream.

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
        """`advance` for several streams (clips or seeds, any lengths), whose windows are sampled together where
        they are alike."""
        current = [_push(state, new) for state, new in zip(states, features, strict=True)]
        final: list[list[Array]] = [[state.known[:0]] for state in current]
        while ready := [i for i, state in enumerate(current) if _is_ready(self.config, state, last)]:
            kind = self._batch_key(current[ready[0]])
            group = [i for i in ready if self._batch_key(current[i]) == kind]
            predicted = self._sample([current[i] for i in group])
            for i, frames in zip(group, predicted, strict=True):
                emitted, current[i] = _absorb(self.config, current[i], frames)
                final[i].append(emitted)
        if last:
            for i, state in enumerate(current):
                final[i].append(state.tail)
                current[i] = replace(_emit(self.config, state, state.tail), tail=state.tail[:0], finished=True)
        parts = [np.concatenate(frames) for frames in final]
        return [(self.decode(part, state.rest), state) for part, state in zip(parts, current, strict=True)]

    def _batch_key(self, state: WindowState) -> tuple[int, Sampling]:
        """What streams must have in common to be sampled in one batch."""
        return len(_context(self.config, state)), state.sampling

    def _sample(self, states: list[WindowState]) -> Array:
        """The next window of each state: (B, window - context, 70); a relative model holds the portrait's scale."""
        config = self.config
        device = self.denoiser.output.weight.device
        references = [_reference(config, state) for state in states]
        noise = [_noise(state.seed, state.emitted, config.window - len(_context(config, state))) for state in states]

        def batch(rows: Sequence[Array]) -> Tensor:
            return torch.from_numpy(np.stack(rows)).to(device)

        frames = sample_window(
            self.denoiser,
            batch([state.canonical for state in states]),
            batch(references),
            batch([_window_features(config, state) for state in states]),
            known=batch([_context(config, state) for state in states]),
            noise=batch(noise),
            sampling=states[0].sampling,
        )
        predicted: Array = frames.float().cpu().numpy()
        if config.relative:
            predicted[..., :1] = np.stack([state.reference[:1] for state in states])[:, None]
        return predicted
