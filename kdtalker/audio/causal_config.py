"""Configs of the two audio encoders that students hear with, as in the headers of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from kdtalker.audio.mel import MEL_COLUMNS_PER_FRAME
from kdtalker.audio.whisper import STEPS_PER_FRAME
from kdtalker.core.errors import InputError, quote

WHISPER_WIDTH, WHISPER_LAYERS = 384, 4  # of Whisper tiny
POSITIONS = 1500  # after so many steps, 30 s, position codes begin again


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


@dataclass(frozen=True)
class CausalWhisperConfig:
    """Configure the encoder: features a frame that come out; rank of the low-rank changes; frames before a frame that
    a layer attends to; frames after it, of each layer, 0 or 1: the look-ahead is their sum and one, for the
    convolutions. Raises InputError for what cannot be."""

    features: int = 192
    rank: int = 32
    left_frames: int = 40
    ahead: tuple[int, ...] = (1, 1, 1, 0)

    def __post_init__(self) -> None:
        limits = {"features": 2048, "rank": WHISPER_WIDTH, "left_frames": POSITIONS // STEPS_PER_FRAME - 2}
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"The audio encoder's {name} is {quote(getattr(self, name))}, wanted 1 to {most}.")
        if len(self.ahead) != WHISPER_LAYERS or not set(self.ahead) <= {0, 1}:
            wanted = f"0 or 1 for each of {WHISPER_LAYERS} layers"
            raise InputError(f"The audio encoder's ahead is {quote(self.ahead)}, wanted {wanted}.")

    @property
    def lookahead_frames(self) -> int:
        """Count the frames that are heard beyond a frame."""
        return 1 + sum(self.ahead)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the widths of the stages: three layers, and the features, which the fourth one makes."""
        return (*(WHISPER_LAYERS - 1) * (WHISPER_WIDTH,), self.features)

    @property
    def steps(self) -> tuple[int, ...]:
        """Count the steps a frame of each stage's output."""
        return (*(WHISPER_LAYERS - 1) * (STEPS_PER_FRAME,), 1)


EncoderConfig: TypeAlias = CausalEncoderConfig | CausalWhisperConfig


def read_encoder_config(header: object) -> EncoderConfig:
    """Read the config of either encoder by the names of its fields. Raises InputError where one is missing, unknown or
    of another type."""
    names = {kind: sorted(field.name for field in fields(kind)) for kind in (CausalEncoderConfig, CausalWhisperConfig)}
    found = sorted(header) if isinstance(header, Mapping) else []
    kinds = [kind for kind, wanted in names.items() if wanted == found]
    if not isinstance(header, Mapping) or not kinds:
        wanted = "; or ".join(", ".join(one) for one in names.values())
        raise InputError(f"The audio encoder's config is {quote(header)}, wanted {wanted}.")
    values: dict[str, Any] = {}
    for name, value in header.items():
        is_list = isinstance(getattr(kinds[0](), name), tuple)
        numbers = value if is_list and isinstance(value, list) else [value]
        if is_list != isinstance(value, list) or not all(type(number) is int for number in numbers):
            wanted = "a list of whole numbers" if is_list else "a whole number"
            raise InputError(f"The audio encoder's {name} is {quote(value)}, wanted {wanted}.")
        values[name] = tuple(value) if is_list else value
    return kinds[0](**values)
