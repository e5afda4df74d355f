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
from numpy.typing import NDArray
from torch import Tensor

from kdtalker.checkpoint import read_checkpoint, write_checkpoint
from kdtalker.checkpoint_header import read_motion_header, tensor_shapes
from kdtalker.denoiser import Denoiser
from kdtalker.denoiser_config import DenoiserConfig
from kdtalker.errors import InputError
from kdtalker.motion import KEYPOINTS, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.normalisation import Normalisation
from kdtalker.sampler import sample_window

Array = NDArray[np.float32]

_DIVERGED = 1e18  # of a motion vector's numbers
_HELD = slice(1, 7)  # pose and shift in the motion vector: relative models take them minus the portrait's own


@dataclass(frozen=True)
class WindowState:
    """What a stream of motion remembers between pushes; a value, at most a window long.

    canonical (63,), reference (70,), known (k, 70) the last final frames, tail (o, 70) frames predicted but
    not yet final: all normalised. rest (70,) is added to the motion at the end. silence (C,) are the features
    of silence, features (n, C) those from the first known frame of the next window on. emitted: final frames
    so far.
    """

    canonical: Array
    reference: Array
    rest: Array
    silence: Array
    seed: int
    known: Array
    tail: Array
    features: Array
    emitted: int = 0
    finished: bool = False


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

    def start(self, canonical: Array, reference: Motion, seed: int, silence: Array) -> WindowState:
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
            known=portrait[None][:before],
            tail=np.zeros((0, MOTION_WIDTH), np.float32),
            features=silence[None][:before],
        )

    def advance(
        self,
        state: WindowState,
        features: Array,
        *,
        steps: int,
        guidance: float = 1.0,
        last: bool = False,
    ) -> tuple[Motion, WindowState]:
        """Push features (n, C), n from 0; returns the frames that became final. `last` ends the stream.

        Frames become final a window at a time, but for its `overlap` last ones; `last` fills the final window
        with silence and gives what is owed: in total as many frames as features. Raises InputError for numbers that
        no face has; a model in the middle of its training may make them (`advance_many`).
        """
        ((motion, state),) = self.advance_many([state], [features], steps=steps, guidance=guidance, last=last)
        motion.require_plausible("The motion model is damaged or another file: its motion")
        return motion, state

    def advance_many(
        self,
        states: Sequence[WindowState],
        features: Sequence[Array],
        *,
        steps: int,
        guidance: float = 1.0,
        last: bool = False,
    ) -> list[tuple[Motion, WindowState]]:
        """`advance` for several streams (clips or seeds, any lengths), whose windows are sampled together. steps: 0 is
        the config's own number."""
        current = [_push(state, new) for state, new in zip(states, features, strict=True)]
        final: list[list[Array]] = [[state.known[:0]] for state in current]
        while ready := [i for i, state in enumerate(current) if _is_ready(self.config, state, last)]:
            length = len(_context(self.config, current[ready[0]]))
            group = [i for i in ready if len(_context(self.config, current[i])) == length]
            predicted = self._sample([current[i] for i in group], steps or self.config.steps, guidance)
            for i, frames in zip(group, predicted, strict=True):
                emitted, current[i] = _absorb(self.config, current[i], frames)
                final[i].append(emitted)
        if last:
            for i, state in enumerate(current):
                final[i].append(state.tail)
                current[i] = replace(_emit(self.config, state, state.tail), tail=state.tail[:0], finished=True)
        parts = [np.concatenate(frames) for frames in final]
        return [(self.decode(part, state.rest), state) for part, state in zip(parts, current, strict=True)]

    def _sample(self, states: list[WindowState], steps: int, guidance: float) -> Array:
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
            steps=steps,
            guidance=guidance,
        )
        predicted: Array = frames.float().cpu().numpy()
        if config.relative:
            predicted[..., :1] = np.stack([state.reference[:1] for state in states])[:, None]
        return predicted


def _push(state: WindowState, features: Array) -> WindowState:
    if state.finished:
        raise ValueError("This stream of motion has ended; start another.")
    if features.ndim != 2 or features.shape[1:] != state.silence.shape:
        raise InputError(
            f"Audio features have the shape {features.shape}, wanted (frames, {len(state.silence)}); "
            "use the audio encoder that the motion model names."
        )
    return replace(state, features=np.concatenate([state.features, np.asarray(features, np.float32)]))


def _context(config: DenoiserConfig, state: WindowState) -> Array:
    """The clean frames that the next window continues from: (0 ... context, 70)."""
    return state.known[max(0, len(state.known) - config.context) :] if config.context else state.known[:0]


def _reference(config: DenoiserConfig, state: WindowState) -> Array:
    """The reference token: the portrait's own motion, or without context frames the last frame (KDTalker)."""
    return state.reference if config.context or not len(state.known) else state.known[-1]


def _owed(config: DenoiserConfig, state: WindowState) -> int:
    return len(state.features) - len(_context(config, state))


def _is_ready(config: DenoiserConfig, state: WindowState, last: bool) -> bool:
    """Whether a full window can be sampled, or at the end one that silence fills up."""
    return len(state.features) >= config.window or (last and _owed(config, state) > len(state.tail))


def _window_features(config: DenoiserConfig, state: WindowState) -> Array:
    features = state.features[: config.window]
    return np.concatenate([features, np.tile(state.silence, (config.window - len(features), 1))])


def _noise(seed: int, first_frame: int, frames: int) -> Array:
    """(frames, 70) standard normal, by frame number: two windows predict an overlap from the same noise."""
    rows = [np.random.default_rng((seed, frame)) for frame in range(first_frame, first_frame + frames)]
    return np.stack([row.standard_normal(MOTION_WIDTH, np.float32) for row in rows])


def _absorb(config: DenoiserConfig, state: WindowState, predicted: Array) -> tuple[Array, WindowState]:
    """Blend a sampled window with the tail of the one before; returns the final frames and the next state."""
    overlap = len(state.tail)
    weight = (np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1))[:, None]
    blended = (1 - weight) * state.tail + weight * predicted[:overlap]
    frames = np.concatenate([blended, predicted[overlap:]])
    is_full = len(state.features) >= config.window
    count = len(frames) - config.overlap if is_full else _owed(config, state)
    return frames[:count], replace(
        _emit(config, state, frames[:count]), tail=frames[count:] if is_full else state.tail[:0]
    )


def _emit(config: DenoiserConfig, state: WindowState, frames: Array) -> WindowState:
    """The state once these frames are final: they become known, features that no window needs again go."""
    known = np.concatenate([state.known, frames])[-max(config.context, 1) :]
    moved = replace(state, known=known, emitted=state.emitted + len(frames))
    used = len(frames) + len(_context(config, state)) - len(_context(config, moved))
    return replace(moved, features=state.features[used:].copy())
