"""Another background for a picture: the person is cut out once, softly, so that whatever is drawn from it afterwards
stands before a background that does not move."""

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

FINEST_PX = 1024  # shorter side of the picture in which edges and their colours are sought

_ROWS = 256  # laid at a time, so that a large picture needs little memory beside its own


def lay_behind(picture: Image, background: Image | tuple[int, int, int]) -> Image:
    """The person of an (H, W, 3) picture before a colour, or before another picture, which covers the first one and
    keeps its shape. Raises InputError where either is too narrow a strip."""
    check_shape(picture, "portrait")
    if not isinstance(background, tuple):
        check_shape(background, "background")
    small = _fine_enough(picture)
    matte = person_matte(small)
    own = _own_colours(small, matte[..., None])
    behind = np.full_like(picture, background) if isinstance(background, tuple) else _covering(background, picture)
    height, width = picture.shape[:2]
    matte = np.asarray(cv2.resize(matte, (width, height)), np.float32)
    own = np.asarray(cv2.resize(own, (width, height)), np.uint8)
    laid = np.empty_like(picture)
    for top in range(0, height, _ROWS):
        rows = np.s_[top : top + _ROWS]
        share, there = matte[rows, :, None], picture[rows].astype(np.float32)
        person = there + (1 - share) * (own[rows] - there)
        laid[rows] = np.rint(behind[rows] + share * (person - behind[rows])).clip(0, 255)
    return laid


def isolate(picture: Image) -> tuple[Image, Array]:
    """Estimate the foreground colours (H, W, 3), black where nothing of the person is near, and the alpha matte (H, W)
    0..1 of the person in an (H, W, 3) picture."""
    small = _fine_enough(picture)
    fine = person_matte(small)
    own = _own_colours(small, fine[..., None])
    height, width = picture.shape[:2]
    matte = np.asarray(cv2.resize(fine, (width, height)), np.float32)
    own = np.asarray(cv2.resize(own, (width, height)), np.uint8)
    reach = 2 * max(3, round(EDGE_RADIUS * min(height, width))) + 1
    near = np.asarray(cv2.dilate(matte, np.ones((reach, reach), np.uint8)), np.float32)[..., None]
    foreground = own + matte[..., None] * (picture.astype(np.float32) - own)
    return np.where(near > 0, np.rint(foreground), 0).astype(np.uint8), matte


def colour(name: str) -> tuple[int, int, int]:
    """Red, green, blue 0..255 of '#336699', 'teal' and such. Raises InputError."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError:
        raise InputError(f"'{name}' is neither a picture nor a colour such as #336699 or teal") from None
    return red, green, blue


def _fine_enough(picture: Image) -> Image:
    height, width = picture.shape[:2]
    scale = FINEST_PX / min(height, width)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _own_colours(picture: Image, matte: Array) -> Image:
    """Estimate foreground colours (H, W, 3): half-covered pixels take those of the person beside them, not of what was
    behind; pixels farther away those of a wider neighbourhood."""
    reach = max(3.0, EDGE_RADIUS * min(picture.shape[:2]) / 2)
    sure = (matte > 0.97).astype(np.float32)
    own = _mean_of_person(picture, sure, partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=reach))
    for width in (8, 64):
        box = 2 * round(width * reach / 2) + 1
        far = _mean_of_person(picture, sure, partial(cv2.blur, ksize=(box, box)))
        own = np.where(np.isnan(own), far, own)
    return np.where(np.isnan(own), picture, own).astype(np.uint8)


def _mean_of_person(picture: Image, sure: Array, blur: Callable[[Array], NDArray[Any]]) -> Array:
    """The mean colour (H, W, 3) of the person's pixels, where sure (H, W, 1) is 1, around each pixel; nan where there
    are none."""
    weight = blur(sure)[..., None]
    near = blur(np.asarray(picture * sure, np.float32))
    return np.where(weight > 1e-3, near / np.maximum(weight, 1e-3), np.float32(np.nan)).astype(np.float32)


def _covering(background: Image, picture: Image) -> Image:
    """Another picture, scaled until it covers the first one; what hangs over is cut off on both sides alike, before
    it is scaled, so that no shape takes more memory than the first picture."""
    height, width = picture.shape[:2]
    scale = max(height / background.shape[0], width / background.shape[1])
    rows, columns = _middle(background.shape[0], height / scale), _middle(background.shape[1], width / scale)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(background[rows, columns], (width, height), interpolation=way), np.uint8)


def _middle(length: int, wanted: float) -> slice:
    used = min(length, max(1, round(wanted)))
    return slice((length - used) // 2, (length - used) // 2 + used)
