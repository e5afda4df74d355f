"""Encode sound frame by frame with a causal network, a fixed look-ahead after each frame, as a `BlockEncoder`.
Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdtalker.audio.blocks import BlockEncoder, BlockSpan, BlockState
from kdtalker.audio.causal_config import EncoderConfig
from kdtalker.audio.mel import MEL_HOP, MEL_WINDOW, log_mel
from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME

_MIDDLE, _HALF_RANGE = -4.0, 4.0  # log10 of mel power is scaled from this range to -1..1
FLOOR = -8.0  # log10 of mel power, below which all is silence
_KEPT_SAMPLES = MEL_WINDOW - MEL_HOP  # before a frame, that its first column takes

States = tuple[Array, ...]  # last inputs of convolutions, cached keys and values


class FrameEncoder(Protocol):
    """Encode log-mel frame by frame, its state a value."""

    @property
    def config(self) -> EncoderConfig: ...

    def start_states(self) -> States:
        """Return the states before the first column."""

    def encode(self, columns: Array, states: States, *, skip: int) -> tuple[Array, States]:
        """Encode columns (4 n, 80) of n frames to features (n - skip, C), skip being 1 in the first frames of a stream,
        as many as the look-ahead, whose features would be of frames before it."""


class CausalEncoder(BlockEncoder[States]):
    """Encode each frame as soon as its look-ahead is there; the state between frames is exact, so features do not
    depend on how the sound was cut. Frame f covers samples [640 f, 640 f + 640) and nothing after its look-ahead."""

    block_frames = 1
    left_samples = _KEPT_SAMPLES

    def __init__(self, network: FrameEncoder, mel_filters: Array) -> None:
        self.network, self.mel_filters = network, mel_filters
        self.right_samples = network.config.lookahead_frames * SAMPLES_PER_FRAME

    @property
    def feature_size(self) -> int:
        return self.network.config.widths[-1]

    def start_carry(self) -> States:
        return self.network.start_states()

    def encode_block(self, carry: States, samples: Array, block: BlockSpan) -> tuple[Array, States]:
        """Encode the newest frame; before the first one, those of the look-ahead have not been heard yet."""
        if block.first_frame == 0:
            for frame in range(self.network.config.lookahead_frames):
                first = frame * SAMPLES_PER_FRAME
                heard = samples[first : first + _KEPT_SAMPLES + SAMPLES_PER_FRAME]
                _, carry = self.network.encode(mel_columns(heard, self.mel_filters), carry, skip=1)
        newest = samples[-(_KEPT_SAMPLES + SAMPLES_PER_FRAME) :]
        return self.network.encode(mel_columns(newest, self.mel_filters), carry, skip=0)


@dataclass(frozen=True)
class SlidingCausalEncoder:
    """Encode only what is new with every hop: its features are final (implements SlidingEncoder)."""

    encoder: CausalEncoder

    def start(self) -> BlockState[States]:
        return self.encoder.start()

    def slide(self, state: BlockState[States], samples: Array) -> tuple[Array, BlockState[States]]:
        return self.encoder.encode(state, samples)


def mel_columns(samples: Array, filters: Array) -> Array:
    """Compute scaled log-mel (4 n, 80) of n frames from samples (240 + 640 n,), the first 240 being those before; no
    column hears beyond its frame."""
    columns = np.maximum(log_mel(samples, filters), FLOOR)
    return np.ascontiguousarray(((columns - _MIDDLE) / _HALF_RANGE).T, np.float32)


def mel_of_sound(samples: Array, filters: Array) -> Array:
    """Compute scaled log-mel (4 T, 80) of a whole sound (640 T,), silence before it."""
    return mel_columns(np.pad(np.asarray(samples, np.float32), (_KEPT_SAMPLES, 0)), filters)
