"""Shade the skin around the mouth by a ratio image (Liu, Shan and Zhang 2001): what light and folds change between the
source image's expression and that of a frame, predicted by a small U-Net."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.compiled import kernel
from kdtalker.renderers.mesh.composite import sample_linear
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
    gain = cv2.warpAffine(cv2.exp(log_ratio), matrix, size, flags=cv2.INTER_LINEAR, borderValue=(1, 1, 1))
    area = picture[low[1] : high[1], low[0] : high[0]]
    area[:] = cv2.multiply(area, gain, dtype=cv2.CV_8U)


@kernel()
def weigh_ratio(log_ratio: Array, mask: Array, weight: float, saturation: float) -> Array:
    """Weigh a log ratio image (h, w, 3) by a mask (h, w) 0..1 and a weight; a saturation of 0 makes it grey."""
    weighed = np.empty_like(log_ratio)
    share, colourful = np.float32(weight), np.float32(saturation)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            grey = (log_ratio[y, x, 0] + log_ratio[y, x, 1] + log_ratio[y, x, 2]) / np.float32(3)
            for channel in range(3):
                colour = grey + colourful * (log_ratio[y, x, channel] - grey)
                weighed[y, x, channel] = share * mask[y, x] * colour
    return weighed


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
    to_source_crop = np.ascontiguousarray(cv2.invertAffineTransform(source_crop.matrix), np.float32)
    return np.asarray(_measure_displacement(flow, crop.matrix, to_source_crop))


@kernel()
def _measure_displacement(flow: Array, matrix: Array, to_source_crop: Array) -> Array:
    displacement = np.empty((2, SIDE_PX, SIDE_PX), np.float32)
    last, most = np.float32(flow.shape[-1] - 1), np.float32(MOST_DISPLACEMENT_PX)
    for row in range(SIDE_PX):
        for column in range(SIDE_PX):
            x = matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]
            y = matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]
            inside_x, inside_y = min(max(x, 0), last), min(max(y, 0), last)
            u = sample_linear(flow[0], inside_x, inside_y) + x - inside_x  # beyond the picture nothing moves
            v = sample_linear(flow[1], inside_x, inside_y) + y - inside_y
            for axis, here in enumerate((column, row)):
                back = to_source_crop[axis, 0] * u + to_source_crop[axis, 1] * v + to_source_crop[axis, 2]
                displacement[axis, row, column] = min(max(back - here, -most), most)
    return displacement
