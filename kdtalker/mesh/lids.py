"""Lids that close: where they meet, which skin covers the eye, and the line of lashes they leave."""

from __future__ import annotations

import cv2
import numpy as np

from kdtalker.motion import Array
from kdtalker.renderer import Image
from kdtalker.tracker import EYE_CONTOURS

SHUT_GAP = 0.4  # lids nearer than this share of the photograph's gap are drawn nearer still, so that no slit is left
LOWER_LID_SHARE = 0.3  # of the way by which they are brought together
OVERLAP = 0.3  # of the photograph's gap, by which shut lids cover one another
# Shut lids show skin from this share of the gap above the photographed edge, not its lashes and iris.
SKIN_FROM_ABOVE = 0.28
LASH_DARKNESS, LASH_WIDTH = 0.62, 0.06  # of the skin's own colour; of the eye's width
LID_TONE = 0.95  # how much of a shut lid's own, stretched picture is replaced by the tone of the skin
LEAST_GAP_PX = 1.0  # eyes photographed shut have nothing to close

# Around each eye: the crease of the upper lid, the skin between it and the brow, the skin under the eye.
_AROUND = (
    ((247, 30, 29, 27, 28, 56, 190), (225, 224, 223, 222, 221), (24, 23, 22, 230, 231)),
    ((467, 260, 259, 257, 258, 286, 414), (445, 444, 443, 442, 441), (254, 253, 252, 450, 451)),
)


def move_lids(vertices: Array, photographed: Array) -> tuple[Array, Array]:
    """Target vertices (468, 3) px with lids that meet, and the places (468, 3) px in the photograph they show."""
    moved, places = vertices.copy(), photographed.copy()
    for contour in EYE_CONTOURS:
        lower, upper = list(contour[1:8]), list(contour[9:])
        down, own = _gaps(photographed, lower, upper)
        share = _share(vertices, photographed, contour)
        near = np.maximum(SHUT_GAP - share, 0) / SHUT_GAP
        wanted = np.where(own < LEAST_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
        step = (share - wanted)[:, None] * down
        moved[upper, :2] += (1 - LOWER_LID_SHARE) * step
        moved[lower, :2] -= LOWER_LID_SHARE * step
        closing = np.where(own < LEAST_GAP_PX, 0, np.clip(1 - share, 0, 1))
        places[upper, :2] -= (SKIN_FROM_ABOVE * closing)[:, None] * down
    return moved, places


def draw_lids(frame: Image, picture: Image, vertices: Array, photographed: Array) -> None:
    """Give lids that come down in frame (S, S, 3) the tone of the skin around the eye in the picture (S, S, 3), and
    a line of lashes along their edge."""
    for contour, (crease, above, below) in zip(EYE_CONTOURS, _AROUND, strict=True):
        _, own = _gaps(photographed, list(contour[1:8]), list(contour[9:]))
        closing = float(np.clip(1 - _share(vertices, photographed, contour).mean(), 0, 1))
        weight = float(np.clip((closing - 0.25) / 0.6, 0, 1))
        if own.mean() < LEAST_GAP_PX or weight == 0:
            continue
        edge = vertices[[contour[0], *contour[9:], contour[8]], :2]
        lid = np.concatenate([vertices[list(crease), :2], vertices[list(contour[8::-1]), :2]])
        width = float(np.linalg.norm(edge[-1] - edge[0]))
        low = np.maximum(np.floor(lid.min(0) - 0.2 * width).astype(int), 0)
        high = np.minimum(np.ceil(lid.max(0) + 0.2 * width).astype(int), len(frame))
        area = frame[low[1] : high[1], low[0] : high[0]]
        if area.size == 0:
            continue
        skin = (_tone(picture, photographed, above) + _tone(picture, photographed, below)) / 2
        covered = LID_TONE * weight * _soft(area.shape[:2], lid - low, 0.07 * width)[..., None]
        toned = covered * skin + (1 - covered) * area
        line = _soft(area.shape[:2], edge - low, max(0.6, 0.02 * width), thickness=max(1, round(LASH_WIDTH * width)))
        area[:] = (toned * (1 - LASH_DARKNESS * weight * line[..., None]) + 0.5).astype(np.uint8)


def _soft(shape: tuple[int, ...], points: Array, blur_px: float, thickness: int = 0) -> Array:
    """(h, w) 0..1: a polygon, or with a thickness a line, through points (N, 2), blurred."""
    mask = np.zeros(shape[:2], np.uint8)
    corners = np.round(points * 16).astype(np.int32).reshape(-1, 1, 2)
    if thickness:
        cv2.polylines(mask, [corners], False, 255, thickness, cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur_px), np.float32)


def _tone(picture: Image, photographed: Array, points: tuple[int, ...]) -> Array:
    """The median colour (3,) of the picture at landmarks."""
    columns, rows = np.clip(np.round(photographed[list(points), :2]).astype(int), 0, len(picture) - 1).T
    return np.asarray(np.median(picture[rows, columns].astype(np.float32), axis=0), np.float32)


def _gaps(landmarks: Array, lower: list[int], upper: list[int]) -> tuple[Array, Array]:
    """From upper to lower lid: vectors (7, 2) and their lengths (7,)."""
    down = landmarks[lower, :2] - landmarks[upper, :2]
    return down, np.linalg.norm(down, axis=-1)


def _share(vertices: Array, photographed: Array, contour: tuple[int, ...]) -> Array:
    """How open each of the 7 lid pairs is, as a share of the photograph's gap."""
    lower, upper = list(contour[1:8]), list(contour[9:])
    down, own = _gaps(photographed, lower, upper)
    gap, _ = _gaps(vertices, lower, upper)
    share: Array = (gap * down).sum(-1) / np.maximum(own**2, 1e-6)
    return share
