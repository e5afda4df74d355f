"""Replace the background of a picture: alpha matte, foreground estimation and compositing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.face.portrait import check_shape
from kdtalker.face.segmentation import EDGE_RADIUS, person_matte

MATTE_SIDE_PX = 1024  # larger pictures are scaled to this shorter side for the matte and the foreground colours

_ROWS = 256  # rows composited at a time, so that a large picture needs little memory in addition


def replace_background(picture: Image, background: Image | tuple[int, int, int]) -> Image:
    """Composite the person of an (H, W, 3) picture over a colour (RGB 0..255), or over another picture, which is scaled
    to cover (H, W) and cropped around its centre. Returns (H, W, 3).

    Raises InputError where one side of either picture is more than 20 times the other."""
    check_shape(picture, "portrait")
    if not isinstance(background, tuple):
        check_shape(background, "background")
    small = _scale_down(picture)
    matte = person_matte(small)
    colours = _estimate_foreground(small, matte[..., None])
    behind = np.full_like(picture, background) if isinstance(background, tuple) else _cover(background, picture)
    height, width = picture.shape[:2]
    matte = np.asarray(cv2.resize(matte, (width, height)), np.float32)
    colours = np.asarray(cv2.resize(colours, (width, height)), np.uint8)
    composite = np.empty_like(picture)
    for top in range(0, height, _ROWS):
        rows = np.s_[top : top + _ROWS]
        alpha, pixels = matte[rows, :, None], picture[rows].astype(np.float32)
        foreground = pixels + (1 - alpha) * (colours[rows] - pixels)
        composite[rows] = np.rint(behind[rows] + alpha * (foreground - behind[rows])).clip(0, 255)
    return composite


def isolate(picture: Image) -> tuple[Image, Array]:
    """Estimate the foreground colours (H, W, 3), black far from the person, and the alpha matte (H, W) 0..1 of the
    person in an (H, W, 3) picture."""
    small = _scale_down(picture)
    fine = person_matte(small)
    colours = _estimate_foreground(small, fine[..., None])
    height, width = picture.shape[:2]
    matte = np.asarray(cv2.resize(fine, (width, height)), np.float32)
    colours = np.asarray(cv2.resize(colours, (width, height)), np.uint8)
    kernel = 2 * max(3, round(EDGE_RADIUS * min(height, width))) + 1
    near = np.asarray(cv2.dilate(matte, np.ones((kernel, kernel), np.uint8)), np.float32)[..., None]
    foreground = colours + matte[..., None] * (picture.astype(np.float32) - colours)
    return np.where(near > 0, np.rint(foreground), 0).astype(np.uint8), matte


def parse_colour(name: str) -> tuple[int, int, int]:
    """Parse '#336699', 'teal' and the like (PIL.ImageColor) to red, green, blue 0..255. Raises InputError."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError:
        raise InputError(f"'{name}' is neither a picture nor a colour such as #336699 or teal") from None
    return red, green, blue


def _scale_down(picture: Image) -> Image:
    height, width = picture.shape[:2]
    scale = MATTE_SIDE_PX / min(height, width)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _estimate_foreground(picture: Image, matte: Array) -> Image:
    """Estimate foreground colours (H, W, 3): the mean of opaque pixels nearby, so that half-covered pixels lose the
    colour of the old background; where no opaque pixel is near, the mean of a wider neighbourhood."""
    sigma = max(3.0, EDGE_RADIUS * min(picture.shape[:2]) / 2)
    opaque = (matte > 0.97).astype(np.float32)
    colours = _masked_mean(picture, opaque, partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=sigma))
    for width in (8, 64):
        box = 2 * round(width * sigma / 2) + 1
        wider = _masked_mean(picture, opaque, partial(cv2.blur, ksize=(box, box)))
        colours = np.where(np.isnan(colours), wider, colours)
    return np.where(np.isnan(colours), picture, colours).astype(np.uint8)


def _masked_mean(picture: Image, mask: Array, blur: Callable[[Array], NDArray[Any]]) -> Array:
    """Average the picture around each pixel over the pixels where mask (H, W, 1) is 1: (H, W, 3), nan where there are
    none."""
    weight = blur(mask)[..., None]
    total = blur(np.asarray(picture * mask, np.float32))
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), np.float32(np.nan)).astype(np.float32)


def _cover(background: Image, picture: Image) -> Image:
    """Scale a background to cover the picture. It is cropped first, so that no aspect ratio takes more memory than the
    picture."""
    height, width = picture.shape[:2]
    scale = max(height / background.shape[0], width / background.shape[1])
    rows, columns = _centre(background.shape[0], height / scale), _centre(background.shape[1], width / scale)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(background[rows, columns], (width, height), interpolation=interpolation), np.uint8)


def _centre(length: int, wanted: float) -> slice:
    used = min(length, max(1, round(wanted)))
    return slice((length - used) // 2, (length - used) // 2 + used)
