"""Compute CPBD, the cumulative probability of blur detection (Narvekar and Karam, IEEE TIP 20(9), 2011).

Sharpness without a reference, 0..1: the share of edges whose blur a viewer would not notice. Edge widths are those of
Marziliano et al. (ICIP 2002): along the row, between the extrema of brightness on both sides of a vertical edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Image

BLOCK_PX, LEAST_EDGES = 64, 0.002  # a block counts where more than this share of its pixels are edges
LOW_CONTRAST, WIDE_PX, NARROW_PX = 50, 5, 3  # just noticeable blur: 5 px in blocks of at most this contrast, else 3
BETA = 3.6  # exponent of the psychometric function
DETECTION = 0.63  # probability of detection at the just noticeable blur, 1 - 1/e, in whole percent
# Edges are peaks of Sobel's slope along the row whose square exceeds this share of the image's mean, which the paper
# leaves open, and whose gradient lies within 22.5 degrees of the row.
LEAST_SLOPE, WIDEST_ANGLE = 0.5, np.tan(np.pi / 8)


def cpbd(image: Image) -> float:
    """Compute the CPBD of an image (H, W, 3) RGB or (H, W); 0 where it has no edges."""
    from skimage.feature import canny

    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, np.float64)
    edges, widths = canny(grey), edge_widths(grey)  # type: ignore[no-untyped-call]
    probabilities = [np.zeros(0)]
    for top in range(0, len(grey) - BLOCK_PX + 1, BLOCK_PX):
        for left in range(0, grey.shape[1] - BLOCK_PX + 1, BLOCK_PX):
            block = np.s_[top : top + BLOCK_PX, left : left + BLOCK_PX]
            if edges[block].mean() > LEAST_EDGES:
                noticeable_px = WIDE_PX if np.ptp(grey[block]) <= LOW_CONTRAST else NARROW_PX
                found = widths[block][widths[block] > 0]
                probabilities.append(1 - np.exp(-((found / noticeable_px) ** BETA)))
    detected = np.concatenate(probabilities)
    return float((np.round(detected, 2) <= DETECTION).mean()) if len(detected) else 0.0


def edge_widths(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure the width (H, W) in px of every vertical edge of a grey image (H, W); 0 elsewhere."""
    rising, falling = (_run_lengths(sign * np.diff(grey, axis=1) > 0) for sign in (1, -1))
    across, along = (cv2.Sobel(grey, cv2.CV_64F, *order) for order in ((1, 0), (0, 1)))
    slope = np.abs(across)
    is_edge = (slope**2 > LEAST_SLOPE * (slope**2).mean()) & (np.abs(along) <= WIDEST_ANGLE * slope)
    is_edge[:, 1:-1] &= (slope[:, 1:-1] > slope[:, :-2]) & (slope[:, 1:-1] >= slope[:, 2:])
    is_edge[:, [0, -1]] = False
    return np.where(is_edge, np.where(across > 0, rising, falling), 0.0)


def _run_lengths(is_step: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Count the steps of the run through each pixel: (H, W - 1) steps between pixels to (H, W)."""
    height, steps = is_step.shape
    before, after = np.zeros((height, steps + 1)), np.zeros((height, steps + 1))
    for column in range(steps):
        before[:, column + 1] = np.where(is_step[:, column], before[:, column] + 1, 0)
        after[:, -column - 2] = np.where(is_step[:, -column - 1], after[:, -column - 1] + 1, 0)
    return before + after
