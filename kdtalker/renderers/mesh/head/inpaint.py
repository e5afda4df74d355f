"""Inpaint the disoccluded background once per source image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.core.compiled import kernel

COARSE_PX = 128  # side of the small picture on which shifts are compared
SHIFT_LENGTHS = (0.12, 0.2, 0.32)  # lengths of the candidate shifts, as shares of the side
SHIFT_DIRECTIONS = 16  # candidate directions of each length
# The cost of a shift is averaged by a Gaussian of NEAR_SIGMA_PX and, with the small FAR_WEIGHT, by one of FAR_SIGMA_PX
# (px of the small picture), which decides where no known pixel is near.
NEAR_SIGMA_PX, FAR_SIGMA_PX, FAR_WEIGHT = 6, 15, 1e-3
SOURCE_DISTANCE = 0.02  # from the person, as a share of the side: nearer pixels, such as loose hair, are not copied
SMOOTH_SIGMA_PX = 3  # of the Gaussian after which copies are compared with the smooth inpainting
# The smooth inpainting stands where every copy costs more than this: squared levels, and a multiple of the contrast of
# the surroundings, so that texture goes on as texture and a plain or blurred background as a plain one.
SMOOTH_COST, CONTRAST_WEIGHT = 200, 5
SEAM_WEIGHT = 2  # of the difference of neighbouring copies against the cost of the shifts
SWEEPS = 6  # of iterated conditional modes
TEXTURE_DEPTH = 0.14  # distance from the person's border, as a share of the side, at which texture has faded to a blur
GRAIN_SIGMA_PX = 1.5  # of the Gaussian that separates grain from picture
MAX_GRAIN = 6  # levels, standard deviation
_UNAVAILABLE = np.float32(1e30)  # cost of a copy from beyond the known background

Labels = NDArray[np.int64]  # (C, C) number of the shift of each pixel


def inpaint_background(picture: Image, person: Array) -> Image:
    """Remove the person, mask (S, S) 0..1, from a picture (S, S, 3) and inpaint the background (S, S, 3).

    Near the person's border each pixel is copied by the best of a set of shifts (shift-map editing, Pritch et al.
    2009), so that straight lines continue; deeper inside, and where no shift fits, it is a blurred Telea inpainting
    with the photograph's grain."""
    side = len(picture)
    wide = np.asarray(cv2.dilate((person > 0.03) * 1.0, np.ones((3, 3)), iterations=max(1, side // 100)), np.float32)
    hidden = (wide > 0.02).astype(np.uint8)
    usable = (cv2.dilate(hidden, np.ones((3, 3)), iterations=round(SOURCE_DISTANCE * side)) == 0).astype(np.float32)
    coarse, small_wide, small_usable = (
        cv2.resize(one, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA) for one in (picture, wide, usable)
    )
    known = (small_wide == 0).astype(np.float32)
    smooth = np.asarray(cv2.inpaint(coarse, (known == 0).astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)
    labels, shifts = _choose_shifts(smooth.astype(np.float32), known, (small_usable == 1).astype(np.float32))
    texture, share = _copy_shifted(picture.astype(np.float32), hidden, usable, labels, shifts)
    depth = np.minimum(cv2.distanceTransform(hidden, cv2.DIST_L2, 5), side)
    share *= np.exp(-((depth / (TEXTURE_DEPTH * side)) ** 2))
    blur = cv2.resize(smooth, (side, side), interpolation=cv2.INTER_CUBIC) + _grain(picture, usable)[..., None]
    painted = blur + share[..., None] * (texture - blur)
    weight = cv2.GaussianBlur(wide, (0, 0), side / 250)[..., None]
    filled: Image = np.clip(weight * painted + (1 - weight) * picture + 0.5, 0, 255).astype(np.uint8)
    return filled


def _choose_shifts(smooth: Array, known: Array, usable: Array) -> tuple[Labels, list[tuple[int, int]]]:
    """Choose for each pixel the index of a shift, (x, y) in coarse px: the one that matches the known surroundings
    and the neighbouring copies. The last is (0, 0), the smooth inpainting itself.

    smooth (C, C, 3): the picture with the person inpainted smoothly; known, usable (C, C) 0 or 1: the background, and
    the part of it that may be copied."""
    angles = 2 * np.pi * np.arange(SHIFT_DIRECTIONS) / SHIFT_DIRECTIONS
    spans = [(length * COARSE_PX * np.cos(angles), length * COARSE_PX * np.sin(angles)) for length in SHIFT_LENGTHS]
    shifts = [(round(x), round(y)) for across, down in spans for x, y in zip(across, down, strict=True)]
    blurred = np.asarray(cv2.GaussianBlur(smooth, (0, 0), SMOOTH_SIGMA_PX), np.float32)
    costs = []
    for shift in shifts:
        there = _translate(usable, shift)
        both = known * there
        error = _average(both * ((smooth - _translate(smooth, shift)) ** 2).sum(-1))
        away = ((blurred - _translate(blurred, shift)) ** 2).sum(-1)
        costs.append(np.where(there > 0, (error + 0.1) / (_average(both) + 1e-6) + away, _UNAVAILABLE))
    contrast = _average(known * ((smooth - blurred) ** 2).sum(-1)) / (_average(known) + 1e-6)
    costs.append(SMOOTH_COST + CONTRAST_WEIGHT * contrast)
    shifts.append((0, 0))
    labels = np.argmin(costs, axis=0)
    _minimise_seams(labels, np.array(costs, np.float32), smooth, np.array(shifts), known)
    return labels, shifts


def _average(values: Array) -> Array:
    """Average values (C, C) over the near surroundings, and a little over the far ones."""
    near, far = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in (NEAR_SIGMA_PX, FAR_SIGMA_PX))
    return np.asarray(near + FAR_WEIGHT * far, np.float32)


@kernel(fastmath=True)
def _minimise_seams(labels: Labels, costs: Array, picture: Array, shifts: NDArray[np.int64], known: Array) -> None:
    """Minimise costs (L, C, C) plus the seams between neighbours with other shifts (L, 2) by iterated conditional
    modes: labels are updated in place where the picture (C, C, 3) is not known (C, C)."""
    last = len(labels) - 1
    for _ in range(SWEEPS):
        for y in range(1, last):
            for x in range(1, last):
                least = _UNAVAILABLE
                for label in range(len(shifts) if known[y, x] == 0 else 0):
                    cost = costs[label, y, x]
                    if cost >= least:
                        continue
                    for neighbour in range(4):
                        down, right = (neighbour < 2) * (2 * neighbour - 1), (neighbour >= 2) * (2 * neighbour - 5)
                        other = labels[y + down, x + right] if known[y + down, x + right] == 0 else len(shifts) - 1
                        if other != label:
                            for dy, dx in ((0, 0), (down, right)):
                                cost += SEAM_WEIGHT * _seam(picture, y + dy, x + dx, shifts[label], shifts[other])
                    if cost < least:
                        least = cost
                        labels[y, x] = label


@kernel(fastmath=True)
def _seam(picture: Array, y: int, x: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Compute the squared difference of two copies of a picture (C, C, 3) at one pixel."""
    last = len(picture) - 1
    total = 0.0
    for channel in range(3):
        first = picture[min(max(y - one[1], 0), last), min(max(x - one[0], 0), last), channel]
        second = picture[min(max(y - other[1], 0), last), min(max(x - other[0], 0), last), channel]
        total += (first - second) ** 2
    return total


def _copy_shifted(
    picture: Array, hidden: NDArray[np.uint8], usable: Array, labels: Labels, shifts: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """Copy the usable surroundings (S, S) into the hidden area (S, S) by the chosen shifts, (S, S, 3), with the colours
    matched at its border; and (S, S) 0..1, where there was a pixel to copy."""
    side = len(hidden)
    known = 1 - hidden.astype(np.float32)
    copied, counts = np.zeros_like(picture), np.zeros_like(known)
    for index in np.unique(labels):
        if shifts[index] == (0, 0):
            continue
        weight = cv2.resize(cv2.GaussianBlur((labels == index) * 1.0, (0, 0), 1.2), (side, side)).astype(np.float32)
        x, y = shifts[index]
        shift = round(x * side / COARSE_PX), round(y * side / COARSE_PX)
        weight *= _translate(usable, shift)
        copied += weight[..., None] * _translate(picture, shift)
        counts += weight
    copied /= np.maximum(counts, 1e-6)[..., None]
    border = known * (counts > 0.5) * (cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), side / 64) > 0.02)
    difference = cv2.GaussianBlur(border[..., None] * (picture - copied), (0, 0), side / 40)
    copied += difference / (cv2.GaussianBlur(border, (0, 0), side / 40) + 1e-3)[..., None]
    return copied, np.clip(2 * counts, 0, 1)


def _grain(picture: Image, usable: Array) -> Array:
    """Sample Gaussian noise (S, S) of the strength that the grain has in the usable part (S, S) of a picture."""
    light = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
    detail = (light - cv2.GaussianBlur(light, (0, 0), GRAIN_SIGMA_PX))[usable > 0]
    strength = min(float(np.median(np.abs(detail))) / 0.67, MAX_GRAIN) if len(detail) else 0.0
    return np.random.default_rng(0).normal(0, strength, light.shape).astype(np.float32)


def _translate(values: Array, shift: tuple[int, int]) -> Array:
    """Translate values (S, S, ...) by (x, y) px, with zeros outside."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    return np.asarray(cv2.warpAffine(values, matrix, values.shape[1::-1], flags=cv2.INTER_NEAREST), np.float32)
