"""What stands behind a person: filled once, for a head that moves shows a rim of it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image

COARSE_PX = 128  # side on which shifts are compared
SHIFT_REACHES = (0.12, 0.2, 0.32)  # of the side
SHIFT_WAYS = 16
NEAR_PX, FAR_PX, FAR_COUNTS = 6, 15, 1e-3  # coarse px around a pixel within which a shift has to fit
DEEP = 0.14  # of the side: from here on a blur stands behind the person


def fill_behind(picture: Image, person: Array) -> Image:
    """The picture (S, S, 3) without its person (S, S) 0..1. Near the border the surroundings go on, each pixel copied
    by the one of a few shifts that repeats them best there (shift-map editing, Pritch et al. 2009, solved pixel by
    pixel), so that straight lines stay straight; further in, where nobody looks, it becomes a blur."""
    side = len(picture)
    wide = np.asarray(cv2.dilate((person > 0.03) * 1.0, np.ones((3, 3)), iterations=max(1, side // 100)), np.float32)
    hidden = (wide > 0.02).astype(np.uint8)
    coarse = np.asarray(cv2.resize(picture, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    unseen = (cv2.resize(wide, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    blur = cv2.resize(cv2.inpaint(coarse, unseen, 3, cv2.INPAINT_TELEA), (side, side), interpolation=cv2.INTER_CUBIC)
    continued, share = _continued(picture.astype(np.float32), hidden, *_best_shifts(coarse, 1 - unseen))
    depth = np.minimum(cv2.distanceTransform(hidden, cv2.DIST_L2, 5), side)
    share *= np.exp(-((depth / (DEEP * side)) ** 2))
    painted = blur + share[..., None] * (continued - blur)
    weight = cv2.GaussianBlur(wide, (0, 0), side / 250)[..., None]
    filled: Image = np.clip(weight * painted + (1 - weight) * picture + 0.5, 0, 255).astype(np.uint8)
    return filled


def _best_shifts(coarse: Image, seen: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Which of the shifts, (x, y) in coarse px, repeats the seen surroundings best, for each pixel (C, C)."""
    ways = 2 * np.pi * np.arange(SHIFT_WAYS) / SHIFT_WAYS
    spans = [(reach * COARSE_PX * np.cos(ways), reach * COARSE_PX * np.sin(ways)) for reach in SHIFT_REACHES]
    shifts = [(round(x), round(y)) for across, down in spans for x, y in zip(across, down, strict=True)]
    light, known, costs = coarse.astype(np.float32), seen.astype(np.float32), []
    for shift in shifts:
        there = _shifted(known, shift)
        both = known * there
        unlike = both * ((light - _shifted(light, shift)) ** 2).sum(-1)
        (unlike, both) = (
            cv2.GaussianBlur(one, (0, 0), NEAR_PX) + FAR_COUNTS * cv2.GaussianBlur(one, (0, 0), FAR_PX)
            for one in (unlike, both)
        )
        costs.append(np.where(there > 0, unlike / (both + 1e-6) + 0.1 / (both + 1e-6), np.inf))
    return np.argmin(costs, axis=0), shifts


def _continued(
    picture: Array, hidden: NDArray[np.uint8], best: NDArray[np.int64], shifts: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """(S, S, 3) the surroundings copied into the hidden area (S, S), in the colours of its border, and (S, S) 0..1
    where there was something to copy."""
    side = len(hidden)
    known = 1 - hidden.astype(np.float32)
    copied, counts = np.zeros_like(picture), np.zeros_like(known)
    for index in np.unique(best):
        chosen = cv2.resize(cv2.GaussianBlur((best == index) * 1.0, (0, 0), 1.2), (side, side)).astype(np.float32)
        x, y = shifts[index]
        shift = round(x * side / COARSE_PX), round(y * side / COARSE_PX)
        chosen *= _shifted(known, shift)
        copied += chosen[..., None] * _shifted(picture, shift)
        counts += chosen
    copied /= np.maximum(counts, 1e-6)[..., None]
    border = known * (counts > 0.5) * (cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), side / 64) > 0.02)
    missing = cv2.GaussianBlur(border[..., None] * (picture - copied), (0, 0), side / 40)
    copied += missing / (cv2.GaussianBlur(border, (0, 0), side / 40) + 1e-3)[..., None]
    return copied, np.clip(2 * counts, 0, 1)


def _shifted(values: Array, shift: tuple[int, int]) -> Array:
    """values (S, S, ...) moved by (x, y) px, 0 where nothing comes from."""
    way = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    return np.asarray(cv2.warpAffine(values, way, values.shape[1::-1], flags=cv2.INTER_NEAREST), np.float32)
