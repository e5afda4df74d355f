"""Generate motion hop by hop, for live sound: short windows of known, new and provisional frames.

A window is [known frames | the hop | frames after it]: those after it are made from less sound than they will have,
help to smooth the hop and are made again by the next window, from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.core.protocols import AudioEncoder, Sampling, SlidingSpeech
from kdtalker.diffusion.fir_smoothing import RADIUS, smooth
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.windows import WindowState, context_frames, emit_frames

HOP_FRAMES = 2  # frames of a hop: the first of them is heard one frame further than the last
HEARD_FRAMES = 24  # frames that are heard before a hop
STEPS = 3  # default sampling steps of a window


@dataclass(frozen=True)
class SlidingState:
    """Hold a stream of motion between hops as a value: its next window, and the last vectors (RADIUS, 70) before
    smoothing, none before the first hop."""

    window: WindowState
    recent: Array


@dataclass(frozen=True)
class SlidingMotionModel:
    """Sample motion hop by hop (implements the protocol SlidingModel). lookahead_frames: provisional frames."""

    model: DiffusionMotionModel
    lookahead_frames: int

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> SlidingState:
        sampling = replace(sampling, steps=sampling.steps or STEPS)
        window = self.model.start(canonical, reference, silence, seed=seed, sampling=sampling)
        return SlidingState(window, np.zeros((0, MOTION_WIDTH), np.float32))

    def slide(self, state: SlidingState, features: Array) -> tuple[Motion, SlidingState]:
        """Sample the next window and smooth its hop. Raises InputError for numbers that no face has."""
        model, window = self.model, state.window
        frames = len(context_frames(model.config, window)) + HOP_FRAMES + self.lookahead_frames
        window = replace(window, features=features[-frames:])
        (predicted,) = model.sample([window], frames)
        motion = model.decode(predicted, window.rest)
        motion.require_plausible("The motion model is damaged or another file: its motion")
        vectors = motion.vector()
        recent = state.recent if len(state.recent) else np.repeat(vectors[:1], RADIUS, axis=0)
        seen = np.concatenate([recent, vectors, np.repeat(vectors[-1:], RADIUS, axis=0)])
        final = smooth(seen[: RADIUS + HOP_FRAMES + RADIUS])
        recent = seen[HOP_FRAMES : HOP_FRAMES + RADIUS]
        state = SlidingState(emit_frames(model.config, window, predicted[:HOP_FRAMES]), recent)
        return Motion.from_vector(final, motion.space), state


def sliding_speech(encoder: AudioEncoder[Any], model: DiffusionMotionModel) -> Callable[[int], SlidingSpeech] | None:
    """Return what makes the sliding models for a number of look-ahead frames, None where these models cannot slide: one
    without context frames has no frames to continue from, and other encoders do not encode a window anew."""
    if not isinstance(encoder, WhisperEncoder) or not model.config.context:
        return None
    return partial(_slide, encoder, model)


def _slide(encoder: WhisperEncoder, model: DiffusionMotionModel, lookahead: int) -> SlidingSpeech:
    heard = encoder.sliding(HEARD_FRAMES + HOP_FRAMES + lookahead)
    return SlidingSpeech(heard, SlidingMotionModel(model, lookahead), HOP_FRAMES, lookahead)
