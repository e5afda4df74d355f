"""Encode sound frame by frame with a causal convolutional network, a fixed look-ahead after each frame, as a
`BlockEncoder`. Imports no torch, so that headers are checked early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from kdtalker.audio.blocks import BlockEncoder, BlockSpan, BlockState
from kdtalker.audio.mel import MEL_COLUMNS_PER_FRAME, MEL_HOP, MEL_WINDOW, log_mel
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, quote
from kdtalker.core.rates import SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from kdtalker.audio.causal_inference import EncoderInference

_MIDDLE, _HALF_RANGE = -4.0, 4.0  # log10 of mel power is scaled from this range to -1..1
FLOOR = -8.0  # log10 of mel power, below which all is silence
_KEPT_SAMPLES = MEL_WINDOW - MEL_HOP  # before a frame, that its first column takes

States = tuple[Array, ...]  # last inputs (k - stride, C) of every convolution


@dataclass(frozen=True)
class CausalEncoderConfig:
    """Configure the encoder: channels, strides in time and kernel of its stages, and frames that the last of them hears
    beyond a frame. Raises InputError for what cannot be."""

    widths: tuple[int, ...] = (64, 96, 128, 192)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    kernel: int = 5
    lookahead_frames: int = 4

    def __post_init__(self) -> None:
        sizes = {name: np.atleast_1d(getattr(self, name)) for name in ("widths", "strides", "kernel")}
        if any(((value < 1) | (value > 2048)).any() or not 0 < value.size <= 16 for value in sizes.values()):
            raise InputError(f"The audio encoder's sizes are {quote(self)}, wanted numbers of 1 to 2048.")
        if len(self.widths) != len(self.strides) or np.prod(self.strides) != MEL_COLUMNS_PER_FRAME:
            raise InputError(
                f"The audio encoder's strides are {quote(self.strides)}, wanted one for each of its {len(self.widths)} "
                f"widths, {MEL_COLUMNS_PER_FRAME} multiplied."
            )
        if self.strides[-1] != 1 or self.kernel <= max(self.strides):
            raise InputError("The audio encoder's last stride is not 1, or its kernel no larger than its strides.")
        if not 0 <= self.lookahead_frames <= 100:
            raise InputError(f"The audio encoder hears {self.lookahead_frames} frames ahead, wanted 0 to 100.")

    @property
    def steps(self) -> tuple[int, ...]:
        """Count the steps a frame of each stage's output."""
        return tuple(int(MEL_COLUMNS_PER_FRAME // n) for n in np.cumprod(self.strides))

    @staticmethod
    def from_header(header: object) -> CausalEncoderConfig:
        """Read the fields by name. Raises InputError where one is missing, unknown or of another type."""
        names = [field.name for field in fields(CausalEncoderConfig)]
        if not isinstance(header, Mapping) or sorted(header) != sorted(names):
            raise InputError(f"The audio encoder's config is {quote(header)}, wanted {', '.join(names)}.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in header.items()
        }
        for name, value in values.items():
            numbers = value if name in ("widths", "strides") and isinstance(value, tuple) else (value,)
            if not all(type(number) is int for number in numbers):
                raise InputError(f"The audio encoder's {name} is {quote(value)}, wanted whole numbers.")
        return CausalEncoderConfig(**values)


class CausalEncoder(BlockEncoder[States]):
    """Encode each frame as soon as its look-ahead is there; the state between frames is exact, so features do not
    depend on how the sound was cut. Frame f covers samples [640 f, 640 f + 640) and nothing after its look-ahead."""

    block_frames = 1
    left_samples = _KEPT_SAMPLES

    def __init__(self, network: EncoderInference, mel_filters: Array) -> None:
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
