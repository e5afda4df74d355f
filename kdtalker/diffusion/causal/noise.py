"""The noise of a student's motion: a Gauss-Markov process of second order and variance 1, smooth as heads move: white
noise through the same autoregression twice. A stream begins at rest, at 0. For arrays and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from kdtalker.core.arrays import Array

HEAD_NOISE = slice(0, 6)  # of the noise, the numbers that move pose and shift

ValueT = TypeVar("ValueT", "Array", "Tensor")

Noise = tuple[ValueT, ValueT]  # the process, and the one of first order that drives it


def advance_noise(noise: Noise[ValueT], white: ValueT, memory: float) -> Noise[ValueT]:
    """Advance the process by a frame with white noise (..., N)."""
    value, drive = noise
    drive = memory * drive + (1 - memory**2) ** 0.5 * white
    return memory * value + (1 - memory**2) * (1 + memory**2) ** -0.5 * drive, drive
