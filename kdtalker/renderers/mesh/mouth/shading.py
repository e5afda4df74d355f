"""Shade the skin around the mouth by a ratio image (Liu, Shan and Zhang 2001): what light and folds change between the
source image's expression and that of a frame, predicted by a small U-Net."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.curves import soft_polygon
from kdtalker.renderers.mesh.eyes.parts import Crop
from kdtalker.renderers.mesh.mouth.frame import ORIGIN, PX_PER_WIDTH, MouthFrame

SIDE_PX = 64  # side of the crop that the network sees
REACH, DROP = 0.95, 0.12  # half the crop's side, and its middle below that of the mouth, in mouth widths
MOST_LIGHTER = 0.08  # largest log ratio that is drawn: dark folds keep their hue, and would glow if they got lighter
MOST_DISPLACEMENT_PX = 20.0  # of the crop: more is clipped


def apply_ratio(picture: Image, crop: Crop, log_ratio: Array) -> None:
    """Multiply the area of a crop in a frame (S, S, 3) by a ratio image, in place: its log (SIDE_PX, SIDE_PX, 3)."""
    low, high = crop.bounds(len(picture))
    if (high <= low).any():
        return
    matrix = crop.matrix.copy()
    matrix[:, 2] -= low
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    gain = cv2.exp(cv2.warpAffine(log_ratio, matrix, size, flags=cv2.INTER_LINEAR))
    area = picture[low[1] : high[1], low[0] : high[0]]
    area[:] = cv2.multiply(area, gain, dtype=cv2.CV_8U)


def crop_around(frame: MouthFrame) -> Crop:
    """Compute the crop around a mouth, whose axes are those of the mouth's frame."""
    per_width = frame.matrix[:, :2] * PX_PER_WIDTH
    linear = per_width * (2 * REACH / SIDE_PX)
    middle = frame.matrix[:, :2] @ np.array(ORIGIN) + frame.matrix[:, 2] + DROP * per_width[:, 1]
    corner = middle - linear @ np.full(2, (SIDE_PX - 1) / 2)
    return Crop(np.c_[linear, corner].astype(np.float32), SIDE_PX, float(np.linalg.norm(linear[:, 0])))


def crop_mask(crop: Crop, contour: Array, blur_px: float = 0.6) -> Array:
    """Rasterise a contour (N, 2) px to a mask (SIDE_PX, SIDE_PX) 0..1 of the crop, blurred by blur_px of the crop."""
    return soft_polygon((SIDE_PX, SIDE_PX), crop.to_crop(contour).astype(np.float32), blur_px)


def measure_displacement(flow: Array, crop: Crop, source_crop: Crop) -> Array:
    """Compute the displacement of each px of a crop from the source image's crop, (2, SIDE_PX, SIDE_PX) px of the crop:
    the motion of the skin in the mouth's frame, in which turns of the head remain as parallax. flow (2, S, S):
    the frame's backward flow."""
    x, y = np.meshgrid(*[np.arange(SIDE_PX, dtype=np.float32)] * 2)
    back = []
    at = [row[0] * x + row[1] * y + row[2] for row in crop.matrix]
    inside = [np.clip(values, 0, flow.shape[-1] - 1) for values in at]  # beyond the picture nothing moves
    for part, values, clipped in zip(flow, at, inside, strict=True):
        back.append(cv2.remap(part, inside[0], inside[1], cv2.INTER_LINEAR) + values - clipped)
    in_source = source_crop.to_crop(np.stack(back, -1).reshape(-1, 2))
    moved = in_source.T.reshape(2, SIDE_PX, SIDE_PX) - np.stack([x, y])
    return np.ascontiguousarray(moved.clip(-MOST_DISPLACEMENT_PX, MOST_DISPLACEMENT_PX), np.float32)
