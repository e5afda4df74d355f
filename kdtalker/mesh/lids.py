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
LASH_DARKNESS, LASH_WIDTH = 0.75, 0.07  # of the skin's own colour; of the eye's width
LEAST_GAP_PX = 1.0  # eyes photographed shut have nothing to close


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


def draw_lashes(frame: Image, vertices: Array, photographed: Array) -> None:
    """Darken frame (S, S, 3) along the edge of each upper lid as it comes down."""
    for contour in EYE_CONTOURS:
        _, own = _gaps(photographed, list(contour[1:8]), list(contour[9:]))
        closing = float(np.clip(1 - _share(vertices, photographed, contour).mean(), 0, 1))
        weight = np.clip((closing - 0.25) / 0.6, 0, 1) * LASH_DARKNESS
        if own.mean() < LEAST_GAP_PX or weight == 0:
            continue
        edge = vertices[[contour[0], *contour[9:], contour[8]], :2]
        width = float(np.linalg.norm(edge[-1] - edge[0]))
        low = np.maximum(np.floor(edge.min(0) - 0.2 * width).astype(int), 0)
        high = np.minimum(np.ceil(edge.max(0) + 0.2 * width).astype(int), len(frame))
        area = frame[low[1] : high[1], low[0] : high[0]]
        if area.size == 0:
            continue
        line = np.zeros(area.shape[:2], np.uint8)
        points = np.round((edge - low) * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(line, [points], False, 255, max(1, round(LASH_WIDTH * width)), cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(line.astype(np.float32) / 255, (0, 0), max(0.6, 0.02 * width))
        area[:] = (area * (1 - weight * soft[..., None]) + 0.5).astype(np.uint8)


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
