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
        return warp_square(image, matrix, side_px, shrink, cv2.INTER_LINEAR), matrix


def warp_square(
    image: Image,
    to_picture: Array,
    side_px: int,
    shrink: int,
    interpolation: int,
    *,
    border_mode: int = cv2.BORDER_CONSTANT,
) -> Image:
    """Warp a square of an image to (side_px, side_px, 3), antialiased: the image is scaled down by the whole number
    `shrink` first. to_picture (2, 3): the square's px to the image's; interpolation, border_mode: OpenCV's."""
    matrix = to_picture
    if shrink > 1:
        image = np.asarray(cv2.resize(image, None, None, 1 / shrink, 1 / shrink, cv2.INTER_AREA), np.uint8)
        matrix = (to_picture / shrink).astype(np.float32)
        matrix[:, 2] += 0.5 / shrink - 0.5
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (side_px, side_px), flags=flags, borderMode=border_mode), np.uint8)


def transform_points(matrix: Array, points: Array) -> Array:
    """Apply an affine matrix (2, 3) to points (N, 2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def region_around(points: Array, eyes: Array) -> Region:
    """Compute the region around points (N, 2), rotated so that the eyes (2, 2) are level, with the margin that the mesh
    network was trained with."""
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    axes = np.array([[cos, -sin], [sin, cos]], np.float32).T
    return enclosing_square(points, axes, angle, scale=REGION_MARGIN)


def enclosing_square(points: Array, axes: Array, angle: float, *, scale: float, rise: float = 0.0) -> Region:
    """Fit the square around points (N, 2) px whose x and y axes are the rows of `axes` (2, 2), turned by `angle`.

    scale: its side over the longer extent of the points; rise: how far its centre lies above theirs, over its side.
    """
    projected = points @ axes.T
    low, high = projected.min(0), projected.max(0)
    side = scale * float((high - low).max())
    x, y = axes.T @ ((low + high) / 2 - np.array((0, rise * side), low.dtype))
    return Region(float(x), float(y), side, angle)


def region_of_box(left: float, top: float, right: float, bottom: float) -> Region:
    """Compute the unrotated region around a face's bounding box in px, with the same margin."""
    side = REGION_MARGIN * max(right - left, bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, side, 0.0)
