"""Calibration of a trained motion model: how it samples the mouth, and gains of the head. Imports no torch.

How a mouth moves follows from the sound, how a head moves hardly does. The mean over all motions that may go with a
sound is the best estimate of the mouth, and guidance gives it back the amplitude that a mean lacks. For the head that
mean is no motion at all: it must be a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, quote
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH

POSE_AND_SHIFT = slice(1, 7)  # of a motion vector
_SHAPES = {"mouth_projection": (KEYPOINTS, KEYPOINTS), "mouth_guidance": (), "head_gain": (6,)}
_LARGEST = 6.0  # guidance and gains lie between 0 and this


@dataclass(frozen=True)
class Calibration:
    """Hold the sampling of the mouth and the gains of the head, as `train/motion/calibration.py` fits them.

    mouth_projection (21, 21): of an expression onto mouth and jaw, which are taken from the denoiser's first prediction
    of the clean motion, made from noise alone: the conditional mean; mouth_guidance (): scale of classifier-free
    guidance of that prediction; head_gain (6,): factors of pose and shift around the source's own.

    Raises InputError for other shapes or numbers that cannot be.
    """

    mouth_projection: Array
    mouth_guidance: Array
    head_gain: Array

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            try:
                with np.errstate(over="ignore"):  # what does not fit becomes inf, which is refused
                    value = np.asarray(getattr(self, name), np.float32)
            except (TypeError, ValueError, OverflowError):
                raise InputError(f"The calibration's {name} holds something else than numbers.") from None
            if value.shape != shape or not np.isfinite(value).all():
                raise InputError(
                    f"The calibration's {name} has the shape {value.shape}, wanted {shape} finite numbers."
                )
            if name != "mouth_projection" and not (value.min() >= 0 and value.max() <= _LARGEST):
                raise InputError(f"The calibration's {name} is {quote(value.tolist())}, wanted 0 to {_LARGEST:g}.")
            object.__setattr__(self, name, value)

    def mouth_matrix(self, std: Array) -> Array:
        """Compute the projection (70, 70) of normalised motion vectors (rows) onto the mouth, from their std (70,)."""
        matrix = np.zeros((MOTION_WIDTH, MOTION_WIDTH), np.float32)
        matrix[7:, 7:] = np.kron(self.mouth_projection, np.eye(3, dtype=np.float32)).T * std[7:, None] / std[7:]
        return matrix

    def header(self) -> dict[str, object]:
        """Return the fields as lists, ready for JSON."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @staticmethod
    def from_header(header: object) -> Calibration:
        """Read what `header` returned. Raises InputError where it does not fit."""
        if not isinstance(header, Mapping) or set(header) != set(_SHAPES):
            raise InputError(f"The calibration is {quote(header)}, wanted {', '.join(_SHAPES)}.")
        return Calibration(**header)
