"""Normalisation of motion vectors and canonical keypoints: (x - mean) / std, number by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, quote
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH

_WIDTHS = {
    "mean": MOTION_WIDTH,
    "std": MOTION_WIDTH,
    "canonical_mean": 3 * KEYPOINTS,
    "canonical_std": 3 * KEYPOINTS,
}


@dataclass(frozen=True)
class Normalisation:
    """Hold mean, std (70,) of motion vectors; canonical_mean, canonical_std (63,) of canonical keypoints.

    Raises InputError for other shapes, numbers that are not finite, or a std that is not above 0.
    """

    mean: Array
    std: Array
    canonical_mean: Array
    canonical_std: Array

    def __post_init__(self) -> None:
        for name, width in _WIDTHS.items():
            value = np.asarray(getattr(self, name), dtype=np.float32)
            if value.shape != (width,):
                raise InputError(f"The normalisation's {name} has the shape {value.shape}, wanted ({width},).")
            if not np.isfinite(value).all() or (name.endswith("std") and value.min() <= 0):
                raise InputError(f"The normalisation's {name} holds numbers that cannot be used.")
            object.__setattr__(self, name, value)

    def normalise(self, vectors: Array) -> Array:
        """Normalise motion vectors (..., 70)."""
        return (vectors - self.mean) / self.std

    def restore(self, normalised: Array) -> Array:
        """Denormalise motion vectors (..., 70)."""
        return normalised * self.std + self.mean

    def normalise_canonical(self, keypoints: Array) -> Array:
        """Normalise canonical keypoints (..., 63)."""
        return (keypoints - self.canonical_mean) / self.canonical_std

    def header(self) -> dict[str, list[float]]:
        """Return the four fields as lists, ready for JSON."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @staticmethod
    def from_header(header: object) -> Normalisation:
        """Read what `header` returned. Raises InputError where it does not fit."""
        if not isinstance(header, Mapping):
            raise InputError(f"The normalisation is {quote(header)}, wanted lists of numbers by name.")
        values = {}
        for name, width in _WIDTHS.items():
            numbers = header.get(name)
            if not isinstance(numbers, list) or not all(isinstance(number, (int, float)) for number in numbers):
                raise InputError(f"The normalisation's {name} is {quote(numbers)}, wanted {width} numbers.")
            try:
                with np.errstate(over="ignore"):  # what does not fit becomes inf, which is refused
                    values[name] = np.array(numbers, np.float32)
            except OverflowError:
                raise InputError(f"The normalisation's {name} holds numbers that cannot be used.") from None
        return Normalisation(**values)
