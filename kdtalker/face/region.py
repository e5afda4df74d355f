"""Rotated square regions of a picture: crop them upright and map points back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image

REGION_MARGIN = 1.5  # side of the face mesh network's input, in sides of the face's bounding box


@dataclass(frozen=True)
class Region:
    """Describe a rotated square: centre x, y and side in px, angle in radians (clockwise)."""

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, side_px: int) -> Array:
        """Compute the affine matrix (2, 3) from a crop of side_px to picture px (pixel centres at whole numbers)."""
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
        """Crop the region upright to (side_px, side_px, 3), black outside the picture (H, W, 3); returns it with the
        affine matrix (2, 3) from its px to those of the picture."""
        matrix = self.to_picture(side_px)
        shrink = int(self.side / side_px / 2)
        if shrink > 1:  # anti-alias: sample from a smaller picture
            small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
            onto = (matrix / shrink).astype(np.float32)
            onto[:, 2] += 0.5 / shrink - 0.5
        else:
            small, onto = image, matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(small, onto, (side_px, side_px), flags=flags), np.uint8), matrix


def transform_points(matrix: Array, points: Array) -> Array:
    """Apply an affine matrix (2, 3) to points (N, 2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def region_around(points: Array, eyes: Array) -> Region:
    """Compute the region around points (N, 2), rotated so that the eyes (2, 2) are level, with the margin that the mesh
    network was trained with."""
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    upright = points @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Region(float(x), float(y), REGION_MARGIN * float((high - low).max()), angle)


def region_of_box(left: float, top: float, right: float, bottom: float) -> Region:
    """Compute the unrotated region around a face's bounding box in px, with the same margin."""
    side = REGION_MARGIN * max(right - left, bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, side, 0.0)
