"""Interpolate smooth curves through landmarks and rasterise soft-edged polygons."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.core.arrays import Array

SUPERSAMPLING = 4  # factor at which polygons are rasterised before they are averaged down
SPLINE_STEPS = 6  # points of the curve per segment


def catmull_rom(points: Array) -> Array:
    """Interpolate control points (N, 2) by a Catmull-Rom spline: (6 (N - 1) + 1, 2) points through them."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = (padded[shift : len(points) - 1 + shift, None] for shift in range(4))
    t = (np.arange(SPLINE_STEPS, dtype=np.float32) / SPLINE_STEPS)[:, None]
    curve = start + 0.5 * t * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    return np.concatenate([curve.reshape(-1, 2), points[-1:]]).astype(np.float32)


def soft_polygon(shape: tuple[int, ...], corners: Array, blur_px: float) -> Array:
    """Rasterise a polygon with corners (N, 2) px to a mask (h, w) 0..1, antialiased and blurred by a Gaussian of
    standard deviation blur_px."""
    big = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    fixed_point = np.round((corners + 0.5) * SUPERSAMPLING * 16 - 8).astype(np.int32)
    cv2.fillPoly(big, [fixed_point.reshape(-1, 1, 2)], 255, shift=4)
    mask = cv2.resize(big, (shape[1], shape[0]), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur_px), np.float32)
