"""Lids that close: where they meet, and what stays behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.face.landmarks import EYE_CONTOURS

SHUT_GAP = 0.4  # lids nearer than this share of the photograph's gap are drawn nearer still, so that no slit is left
LOWER_LID_SHARE = 0.3  # of the way by which they are brought together
OVERLAP = 0.3  # of the photograph's gap, by which shut lids cover one another
# Shut lids show skin from this share of the gap above the photographed edge, not its lashes and iris.
SKIN_FROM_ABOVE = 0.28
CORNER = 0.35  # of the eye's width, over which the white stretches as the iris comes nearer
LEAST_GAP_PX = 1.0  # eyes photographed shut have nothing to close
# Landmarks around each eye that a blink does not move; the eyeball's picture follows them.
_SOCKETS = ((33, 133, 226, 244, 229, 231, 223, 27, 23), (263, 362, 446, 464, 449, 451, 443, 257, 253))


@dataclass(frozen=True)
class Lids:
    """landmarks (468, 3) px of the photograph."""

    landmarks: Array

    def move(self, vertices: Array) -> tuple[Array, Array]:
        """Target vertices (468, 3) px with lids that meet, and the places (468, 3) px in the photograph they show."""
        moved, places = vertices.copy(), self.landmarks.copy()
        for contour in EYE_CONTOURS:
            lower, upper = list(contour[1:8]), list(contour[9:])
            down, own = _gaps(self.landmarks, lower, upper)
            share = _share(vertices, self.landmarks, contour)
            near = np.maximum(SHUT_GAP - share, 0) / SHUT_GAP
            wanted = np.where(own < LEAST_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
            step = (share - wanted)[:, None] * down
            moved[upper, :2] += (1 - LOWER_LID_SHARE) * step
            moved[lower, :2] -= LOWER_LID_SHARE * step
            closing = np.where(own < LEAST_GAP_PX, 0, np.clip(1 - share, 0, 1))
            places[upper, :2] -= (SKIN_FROM_ABOVE * closing)[:, None] * down
        return moved, places

    def carry_eyeballs(self, vertices: Array, flow: Array, still_px: float, look: Array) -> None:
        """Inside the lids the eyeball's picture follows its socket and, but for the corners of the eye, look (2,) px:
        writes places in the photograph into flow (2, S, S), unless both are less than still_px."""
        for contour, socket in zip(EYE_CONTOURS, _SOCKETS, strict=True):
            points = vertices[list(contour), :2]
            low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
            high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, flow.shape[1])
            moved = np.abs(vertices[list(socket), :2] - self.landmarks[list(socket), :2]).max()
            if (high <= low).any() or max(moved, np.abs(look).max()) < still_px:
                continue
            y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
            held = _in_the_corners(x, y, points)
            place = np.stack([x - held * look[0], y - held * look[1], np.ones_like(x)], -1)
            place = place @ self._to_photograph(vertices, socket)
            flow[:, low[1] : high[1], low[0] : high[0]] = place.transpose(2, 0, 1)

    def _to_photograph(self, vertices: Array, socket: tuple[int, ...]) -> Array:
        """(3, 2): px of the frame (x, y, 1) to px of the photograph, as the eye's socket has moved."""
        now = np.c_[vertices[list(socket), :2], np.ones(len(socket))]
        return np.asarray(np.linalg.lstsq(now, self.landmarks[list(socket), :2], rcond=None)[0], np.float64)


def _in_the_corners(x: Array, y: Array, contour: Array) -> Array:
    """How far places in px take part in the eye's turning: 1 in its middle, 0 at the corners of contour (16, 2)."""
    across = contour[8] - contour[0]
    along = ((x - contour[0, 0]) * across[0] + (y - contour[0, 1]) * across[1]) / max(float(across @ across), 1e-6)
    return smoothstep(np.minimum(along, 1 - along) / CORNER)


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
