"""Interpolate smooth curves through landmarks and rasterise soft-edged polygons."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.compiled import kernel

SUPERSAMPLING = 4  # factor at which polygons are rasterised before they are averaged down
SPLINE_STEPS = 6  # points of the curve per segment

# Means of 0 to 16 px, as an 8-bit mask has them: 0..1 in steps of 1 / 255.
_LEVELS = (np.rint(255 * np.arange(SUPERSAMPLING**2 + 1) / SUPERSAMPLING**2) / 255).astype(np.float32)


def catmull_rom(points: Array) -> Array:
    """Interpolate control points (N, 2) by a Catmull-Rom spline: (6 (N - 1) + 1, 2) points through them."""
    return np.asarray(_spline(np.ascontiguousarray(points, np.float32)))


@kernel()
def _spline(points: Array) -> Array:
    segments = len(points) - 1
    curve = np.empty((SPLINE_STEPS * segments + 1, 2), np.float32)
    for axis in range(2):
        values = points[:, axis]
        for segment in range(segments):
            start, end = values[segment], values[segment + 1]
            before = values[segment - 1] if segment else 2 * start - end
            after = values[segment + 2] if segment + 2 <= segments else 2 * end - start
            square, cube = 2 * before - 5 * start + 4 * end - after, 3 * (start - end) + after - before
            for step in range(SPLINE_STEPS):
                t = step / SPLINE_STEPS
                curve[SPLINE_STEPS * segment + step, axis] = start + 0.5 * t * (end - before + t * (square + t * cube))
        curve[-1, axis] = values[-1]
    return curve


def soft_polygon(shape: tuple[int, ...], corners: Array, blur_px: float) -> Array:
    """Rasterise a polygon with corners (N, 2) px to a mask (h, w) 0..1, antialiased and blurred by a Gaussian of
    standard deviation blur_px."""
    big = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    fixed_point = np.round((corners + 0.5) * SUPERSAMPLING * 16 - 8).astype(np.int32)
    cv2.fillPoly(big, [fixed_point.reshape(-1, 1, 2)], 255, shift=4)
    return np.asarray(cv2.GaussianBlur(_average_down(big.view(np.uint32), _LEVELS), (0, 0), blur_px), np.float32)


@kernel()
def _average_down(big: NDArray[np.uint32], levels: Array) -> Array:
    """Average squares of SUPERSAMPLING px of a mask of 0 and 255, four px in each number: (4 h, w) to (h, w) 0..1.
    SUPERSAMPLING must be 4: a number of 32 bits holds a byte for each column of a square."""
    height, width = len(big) // SUPERSAMPLING, big.shape[1]
    mask = np.empty((height, width), np.float32)
    one_each, top = np.uint32(0x01010101), np.uint32(24)
    for y in range(height):
        for x in range(width):
            counts = np.uint32(0)  # of the four columns, a byte each
            for row in range(SUPERSAMPLING * y, SUPERSAMPLING * (y + 1)):
                counts += big[row, x] & one_each
            mask[y, x] = levels[np.uint32(counts * one_each) >> top]
    return mask
