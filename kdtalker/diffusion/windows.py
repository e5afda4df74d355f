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
    """Hold a stream of motion between pushes as a value, at most a window long.

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


def push_features(state: WindowState, features: Array) -> WindowState:
    """Append features (n, C). Raises InputError for another C, ValueError where the stream has ended."""
    if state.finished:
        raise ValueError("This stream of motion has ended; start another.")
    if features.ndim != 2 or features.shape[1:] != state.silence.shape:
        raise InputError(
            f"Audio features have the shape {features.shape}, wanted (frames, {len(state.silence)}); "
            "use the audio encoder that the motion model names."
        )
    return replace(state, features=np.concatenate([state.features, np.asarray(features, np.float32)]))


def context_frames(config: DenoiserConfig, state: WindowState) -> Array:
    """Return the clean frames that the next window continues from: (0 ... context, 70)."""
    return state.known[max(0, len(state.known) - config.context) :] if config.context else state.known[:0]


def reference_token(config: DenoiserConfig, state: WindowState) -> Array:
    """Return the reference token (70,): the source's own motion, or without context the last frame (KDTalker)."""
    return state.reference if config.context or not len(state.known) else state.known[-1]


def _owed(config: DenoiserConfig, state: WindowState) -> int:
    return len(state.features) - len(context_frames(config, state))


def is_ready(config: DenoiserConfig, state: WindowState, last: bool) -> bool:
    """Tell whether a full window can be sampled, or at the end one padded with silence features."""
    return len(state.features) >= config.window or (last and _owed(config, state) > len(state.tail))


def window_features(state: WindowState, window: int) -> Array:
    """Return the features (window, C) of the next window, filled up with those of silence."""
    features = state.features[:window]
    return np.concatenate([features, np.tile(state.silence, (window - len(features), 1))])


def sample_noise(seed: int, first_frame: int, frames: int) -> Array:
    """Sample standard normal noise (frames, 70), seeded by frame number: both windows see the same in an overlap."""
    rows = [np.random.default_rng((seed, frame)) for frame in range(first_frame, first_frame + frames)]
    return np.stack([row.standard_normal(MOTION_WIDTH, np.float32) for row in rows])


def blend_window(config: DenoiserConfig, state: WindowState, predicted: Array) -> tuple[Array, WindowState]:
    """Blend a sampled window with the tail of the one before; return the final frames and the next state."""
    overlap = len(state.tail)
    weight = (np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1))[:, None]
    blended = (1 - weight) * state.tail + weight * predicted[:overlap]
    frames = np.concatenate([blended, predicted[overlap:]])
    is_full = len(state.features) >= config.window
    count = len(frames) - config.overlap if is_full else _owed(config, state)
    return frames[:count], replace(
        emit_frames(config, state, frames[:count]), tail=frames[count:] if is_full else state.tail[:0]
    )


def emit_frames(config: DenoiserConfig, state: WindowState, frames: Array) -> WindowState:
    """Mark frames as final: they become known, and features that no window needs again are dropped."""
    known = np.concatenate([state.known, frames])[-max(config.context, 1) :]
    moved = replace(state, known=known, emitted=state.emitted + len(frames))
    used = len(frames) + len(context_frames(config, state)) - len(context_frames(config, moved))
    return replace(moved, features=state.features[used:].copy())
