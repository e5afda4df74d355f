"""Upright squares of a picture, the way there and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image

REGION_MARGIN = 1.5  # the mesh network looks at the face's box times this


@dataclass(frozen=True)
class Region:
    """A square of the picture, turned upright: centre and side in px, angle in radians (clockwise)."""

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, side_px: int) -> Array:
        """The 2x3 matrix from a crop of side_px to picture coordinates (pixel centres at whole numbers)."""
        scale = self.side / side_px
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        middle = (side_px - 1) / 2
        return np.array(
            [
                [cos, -sin, self.x - cos * middle + sin * middle],
                [sin, cos, self.y - sin * middle - cos * middle],
            ],
            np.float32,
        )

    def crop(self, image: Image, side_px: int) -> tuple[Image, Array]:
        """The region as a square picture, black outside, and the matrix that leads back from it to the image."""
        matrix = self.to_picture(side_px)
        shrink = int(self.side / side_px / 2)
        if shrink > 1:  # sample from a smaller picture, so that no detail folds into noise
            small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
            onto = (matrix / shrink).astype(np.float32)
            onto[:, 2] += 0.5 / shrink - 0.5
        else:
            small, onto = image, matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(small, onto, (side_px, side_px), flags=flags), np.uint8), matrix


def transformed(matrix: Array, points: Array) -> Array:
    """(N, 2) points through a 2x3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def region_around(points: Array, eyes: Array) -> Region:
    """The upright square around all points, with the margin that the mesh network was trained with."""
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    upright = points @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Region(float(x), float(y), REGION_MARGIN * float((high - low).max()), angle)


def region_of_box(left: float, top: float, right: float, bottom: float) -> Region:
    """The upright region around a face box that another detector gave."""
    side = REGION_MARGIN * max(right - left, bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, side, 0.0)
