"""Cut a stream of features into overlapping windows, as functions over one state value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.config import DenoiserConfig


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
    sampling: Sampling
    known: Array
    tail: Array
    features: Array
    emitted: int = 0
    finished: bool = False


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
