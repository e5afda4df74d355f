"""Estimate an alpha matte of the person: MediaPipe's selfie segmentation, refined by a guided filter."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.face.litert import LiteRTModel

_SEGMENTER_SIDE_PX = 256  # input of the network

# The soft mask is stretched linearly: at or below the first value a pixel is background, from the second on the person.
MASK_RANGE = (0.2, 0.85)  # of the network's probability
MATTE_RANGE = (0.3, 0.9)  # of the mask after the guided filter

EDGE_RADIUS = 1 / 60  # radius of the guided filter, as a share of the picture's shorter side

EPSILON = 1e-3  # variance of the luminance (0..1) below which the guided filter averages instead of keeping an edge


def person_matte(picture: Image) -> Array:
    """Estimate the alpha matte (H, W) 0..1 of the person in an (H, W, 3) picture."""
    radius = max(2, round(EDGE_RADIUS * min(picture.shape[:2])))
    return segment_person(
        picture, _segmenter(), mask_range=MASK_RANGE, matte_range=MATTE_RANGE, radius=radius, epsilon=EPSILON
    )


def segment_person(
    picture: Image,
    segmenter: LiteRTModel,
    *,
    mask_range: tuple[float, float],
    matte_range: tuple[float, float],
    radius: int,
    epsilon: float,
) -> Array:
    """Segment the person in an (H, W, 3) picture and refine the mask by a guided filter to an alpha matte (H, W) 0..1.

    mask_range and matte_range: values that become 0 and 1, before the filter and after it; radius in px and epsilon as
    of `guided_filter`."""
    small = cv2.resize(picture, (_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX), interpolation=cv2.INTER_AREA)
    (mask,) = segmenter(small.astype(np.float32) / 255)
    mask = _stretch(mask.reshape(_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX), mask_range)
    mask = np.asarray(cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    return _stretch(guided_filter(mask, picture, radius, epsilon), matte_range)


def guided_filter(mask: Array, guide: Image, radius: int, epsilon: float) -> Array:
    """Filter a mask (H, W) by the edges of a guide (H, W, 3): a locally linear function of its luminance, in boxes of
    2 radius + 1 px (He et al. 2010, eq. 5-8). epsilon: variance of the luminance below which no edge is kept."""
    light = np.asarray(cv2.cvtColor(guide, cv2.COLOR_RGB2GRAY), np.float32) / 255

    def mean(values: NDArray[Any]) -> Array:
        return np.asarray(cv2.blur(values, (2 * radius + 1, 2 * radius + 1)), np.float32)

    mean_light, mean_mask = mean(light), mean(mask)
    slope = (mean(light * mask) - mean_light * mean_mask) / (mean(light * light) - mean_light**2 + epsilon)
    return np.asarray(mean(slope) * light + mean(mean_mask - slope * mean_light), np.float32)


@cache
def _segmenter() -> LiteRTModel:
    """Load MediaPipe's selfie segmentation once: loading takes longer than running it."""
    return LiteRTModel("selfie_segmentation.tflite")


def _stretch(values: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)
