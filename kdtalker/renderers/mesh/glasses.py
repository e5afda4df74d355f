"""Glasses: found by their bridge, and what they hold still of a face, for a frame does not bend with the brows."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.face.landmarks import EYE_CONTOURS, outer_eye_distance

INNER_CORNERS = (133, 362)
PATCH_PX = 48  # side of a patch as wide as the inner corners of the eyes are apart
MIDDLE, ROWS = slice(17, 31), slice(8, 40)  # columns on the bridge of the nose; rows between the brows and below
BAR_PX = 4  # a bridge is thinner
BAR_SHOWS = 0.09  # of the patch's light; bold frames have 0.12 to 0.22, bare noses at most 0.07
# Outer eye distances below the eyes: from nothing held to all, and back to nothing. Brows and rims are within.
HELD = (-0.6, -0.4, 0.28, 0.45)


def wears_glasses(picture: Image, landmarks: Array) -> bool:
    """Whether a bar, dark or bright, crosses the nose between the eyes of landmarks (468, 3) px. Frames without a
    rim are thin and often missed."""
    first, second = landmarks[list(INNER_CORNERS), :2]
    across = (second - first) / PATCH_PX
    down = np.array([-across[1], across[0]])
    place = np.c_[across, down, (first + second) / 2 - (across + down) * PATCH_PX / 2].astype(np.float32)
    way, edge = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    patch = cv2.warpAffine(picture, place, (PATCH_PX, PATCH_PX), flags=way, borderMode=edge)
    light = np.asarray(cv2.GaussianBlur(patch.astype(np.float32).mean(-1), (0, 0), 1))
    rows = light[ROWS, MIDDLE]
    bar = rows[BAR_PX:-BAR_PX] - (rows[: -2 * BAR_PX] + rows[2 * BAR_PX :]) / 2
    straight = np.abs(bar.mean(1)) - bar.std(1)
    return bool(straight.max() > BAR_SHOWS * (np.median(light) + 10))


def held_by_glasses(landmarks: Array) -> Array:
    """(468,) 0..1 how much of each landmark's own motion a frame takes away; the lids keep theirs."""
    first, second = landmarks[[33, 263], :2]
    down = np.array([first[1] - second[1], second[0] - first[0]])
    below = (landmarks[:, :2] - (first + second) / 2) @ down / np.linalg.norm(down) / outer_eye_distance(landmarks)
    held = np.asarray(np.interp(below, HELD, (0, 1, 1, 0)), np.float32)
    held[list({*EYE_CONTOURS[0], *EYE_CONTOURS[1]})] = 0
    return held
