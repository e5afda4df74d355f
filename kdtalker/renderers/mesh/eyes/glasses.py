"""Detect glasses by their bridge, and keep the landmarks behind a frame rigid."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.face.landmarks import EYE_CONTOURS, EYE_INNER, EYE_OUTER, outer_eye_distance

PATCH_PX = 48  # side of the resampled patch, as wide as the distance of the inner eye corners
BRIDGE_COLUMNS, BRIDGE_ROWS = slice(17, 31), slice(8, 40)  # of the patch: bridge of the nose, from the brows down
BAR_PX = 4  # largest thickness of a frame's bridge in the patch
# Least contrast of a bridge to the patch's median luminance: bold frames have 0.12 to 0.22, bare noses at most 0.07.
MIN_CONTRAST = 0.09
# Heights below the eyes, in outer eye distances, between which stiffness rises from 0 to 1 and falls to 0 again: brows
# and the rims of a frame lie within.
STIFF_RANGE = (-0.6, -0.4, 0.28, 0.45)


def wears_glasses(picture: Image, landmarks: Array) -> bool:
    """Detect glasses in a picture (H, W, 3) with landmarks (468, 3) px: a straight bar, darker or brighter than its
    surroundings, across the nose between the eyes. Rimless glasses have thin bridges and are often missed."""
    first, second = landmarks[list(EYE_INNER), :2]
    across = (second - first) / PATCH_PX
    down = np.array([-across[1], across[0]])
    matrix = np.c_[across, down, (first + second) / 2 - (across + down) * PATCH_PX / 2].astype(np.float32)
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    patch = cv2.warpAffine(picture, matrix, (PATCH_PX, PATCH_PX), flags=flags, borderMode=border)
    light = np.asarray(cv2.GaussianBlur(patch.astype(np.float32).mean(-1), (0, 0), 1))
    rows = light[BRIDGE_ROWS, BRIDGE_COLUMNS]
    bar = rows[BAR_PX:-BAR_PX] - (rows[: -2 * BAR_PX] + rows[2 * BAR_PX :]) / 2
    straight = np.abs(bar.mean(1)) - bar.std(1)
    return bool(straight.max() > MIN_CONTRAST * (np.median(light) + 10))


def glasses_stiffness(landmarks: Array) -> Array:
    """Compute for landmarks (468, 3) px the share (468,) 0..1 of their non-rigid motion that a frame of glasses
    suppresses; 0 for the eyelids."""
    first, second = landmarks[list(EYE_OUTER), :2]
    down = np.array([first[1] - second[1], second[0] - first[0]])
    below = (landmarks[:, :2] - (first + second) / 2) @ down / np.linalg.norm(down) / outer_eye_distance(landmarks)
    stiffness = np.asarray(np.interp(below, STIFF_RANGE, (0, 1, 1, 0)), np.float32)
    stiffness[list({*EYE_CONTOURS[0], *EYE_CONTOURS[1]})] = 0
    return stiffness
