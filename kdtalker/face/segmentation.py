"""Segment the person: a soft mask by MediaPipe, refined to an alpha matte by a guided filter."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.face.litert import LiteRTModel

_SEGMENTER_SIDE_PX = 256

SURE_FROM, SURE_TO = 0.2, 0.85  # of the segmenter's word, between which a pixel is in part the person's

EDGE_FROM, EDGE_TO = 0.3, 0.9  # the same once the mask lies on the picture's edges

REACH = 1 / 60  # of the picture's shorter side: how far an edge may be from where the segmenter sees it

LIGHT_NOISE = 1e-3  # variance of light below which the picture shows no edge


def person_matte(picture: Image) -> Array:
    """(H, W) 0..1: how far each pixel is the person's."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX), interpolation=cv2.INTER_AREA)
    (mask,) = _segmenter()(small.astype(np.float32) / 255)
    sure = _ramp(mask.reshape(_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX), SURE_FROM, SURE_TO)
    sure = np.asarray(cv2.resize(sure, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return _ramp(_on_edges(sure, picture, max(2, round(REACH * min(height, width)))), EDGE_FROM, EDGE_TO)


@cache
def _segmenter() -> LiteRTModel:
    """Load MediaPipe's selfie segmentation once: that takes longer than to run it."""
    return LiteRTModel("selfie_segmentation.tflite")


def _ramp(values: Array, low: float, high: float) -> Array:
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def _on_edges(mask: Array, picture: Image, reach: int) -> Array:
    """The mask (H, W) as a locally linear function of the picture's light (He et al. 2010, eq. 5-8)."""
    light = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) / 255

    def mean(values: NDArray[Any]) -> Array:
        return np.asarray(cv2.blur(values, (2 * reach + 1, 2 * reach + 1)), np.float32)

    mean_light, mean_mask = mean(light), mean(mask)
    slope = (mean(light * mask) - mean_light * mean_mask) / (mean(light * light) - mean_light**2 + LIGHT_NOISE)
    return np.asarray(mean(slope) * light + mean(mean_mask - slope * mean_light), np.float32)
