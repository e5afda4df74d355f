"""Inpaint the disoccluded background once per source image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image

COARSE_PX = 128  # side of the small picture on which shifts are compared
SHIFT_LENGTHS = (0.12, 0.2, 0.32)  # lengths of the candidate shifts, as shares of the side
SHIFT_DIRECTIONS = 16  # candidate directions of each length
# The cost of a shift is averaged by a Gaussian of NEAR_SIGMA_PX and, with the small FAR_WEIGHT, by one of FAR_SIGMA_PX
# (px of the small picture), which decides where no known pixel is near.
NEAR_SIGMA_PX, FAR_SIGMA_PX, FAR_WEIGHT = 6, 15, 1e-3
TEXTURE_DEPTH = 0.14  # distance from the person's border, as a share of the side, at which texture has faded to a blur


def inpaint_background(picture: Image, person: Array) -> Image:
    """Remove the person, mask (S, S) 0..1, from a picture (S, S, 3) and inpaint the background (S, S, 3).

    Near the person's border each pixel is copied by the best of a set of shifts (shift-map editing, Pritch et al. 2009,
    with independent pixels), so that straight lines continue; deeper inside it fades to a blurred Telea inpainting."""
    side = len(picture)
    wide = np.asarray(cv2.dilate((person > 0.03) * 1.0, np.ones((3, 3)), iterations=max(1, side // 100)), np.float32)
    hidden = (wide > 0.02).astype(np.uint8)
    coarse = np.asarray(cv2.resize(picture, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    unknown = (cv2.resize(wide, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    blur = cv2.resize(cv2.inpaint(coarse, unknown, 3, cv2.INPAINT_TELEA), (side, side), interpolation=cv2.INTER_CUBIC)
    texture, share = _copy_shifted(picture.astype(np.float32), hidden, *_best_shifts(coarse, 1 - unknown))
    depth = np.minimum(cv2.distanceTransform(hidden, cv2.DIST_L2, 5), side)
    share *= np.exp(-((depth / (TEXTURE_DEPTH * side)) ** 2))
    painted = blur + share[..., None] * (texture - blur)
    weight = cv2.GaussianBlur(wide, (0, 0), side / 250)[..., None]
    filled: Image = np.clip(weight * painted + (1 - weight) * picture + 0.5, 0, 255).astype(np.uint8)
    return filled


def _best_shifts(coarse: Image, known: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Choose for each pixel (C, C) the index of the shift, (x, y) in coarse px, that matches the known surroundings
    best; returns the shifts too."""
    angles = 2 * np.pi * np.arange(SHIFT_DIRECTIONS) / SHIFT_DIRECTIONS
    spans = [(length * COARSE_PX * np.cos(angles), length * COARSE_PX * np.sin(angles)) for length in SHIFT_LENGTHS]
    shifts = [(round(x), round(y)) for across, down in spans for x, y in zip(across, down, strict=True)]
    light, mask, costs = coarse.astype(np.float32), known.astype(np.float32), []
    for shift in shifts:
        there = _translate(mask, shift)
        both = mask * there
        error = both * ((light - _translate(light, shift)) ** 2).sum(-1)
        (error, both) = (
            cv2.GaussianBlur(one, (0, 0), NEAR_SIGMA_PX) + FAR_WEIGHT * cv2.GaussianBlur(one, (0, 0), FAR_SIGMA_PX)
            for one in (error, both)
        )
        costs.append(np.where(there > 0, error / (both + 1e-6) + 0.1 / (both + 1e-6), np.inf))
    return np.argmin(costs, axis=0), shifts


def _copy_shifted(
    picture: Array, hidden: NDArray[np.uint8], best: NDArray[np.int64], shifts: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """Copy the surroundings into the hidden area (S, S) by the chosen shifts, (S, S, 3), with the colours matched at
    its border; and (S, S) 0..1, where there was a known pixel to copy."""
    side = len(hidden)
    known = 1 - hidden.astype(np.float32)
    copied, counts = np.zeros_like(picture), np.zeros_like(known)
    for index in np.unique(best):
        weight = cv2.resize(cv2.GaussianBlur((best == index) * 1.0, (0, 0), 1.2), (side, side)).astype(np.float32)
        x, y = shifts[index]
        shift = round(x * side / COARSE_PX), round(y * side / COARSE_PX)
        weight *= _translate(known, shift)
        copied += weight[..., None] * _translate(picture, shift)
        counts += weight
    copied /= np.maximum(counts, 1e-6)[..., None]
    border = known * (counts > 0.5) * (cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), side / 64) > 0.02)
    difference = cv2.GaussianBlur(border[..., None] * (picture - copied), (0, 0), side / 40)
    copied += difference / (cv2.GaussianBlur(border, (0, 0), side / 40) + 1e-3)[..., None]
    return copied, np.clip(2 * counts, 0, 1)


def _translate(values: Array, shift: tuple[int, int]) -> Array:
    """Translate values (S, S, ...) by (x, y) px, with zeros outside."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    return np.asarray(cv2.warpAffine(values, matrix, values.shape[1::-1], flags=cv2.INTER_NEAREST), np.float32)
