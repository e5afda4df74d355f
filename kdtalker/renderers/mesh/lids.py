"""Warp the eyelids: close them without a slit, and move the eyeballs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.face.landmarks import EYE_CONTOURS

# Lids nearer than this share of the source's gap are drawn still nearer, so that no slit is left when they close.
CLOSING_SHARE = 0.4
LOWER_LID_SHARE = 0.3  # of the closing motion, done by the lower lid
OVERLAP = 0.3  # of the source's gap, by which closed lids overlap
# Share of the source's gap above the upper lid's edge from which closed lids show skin instead of lashes and iris.
SKIN_OFFSET = 0.28
CORNER_WIDTH = 0.35  # of the eye's width, along which the sclera stretches when the iris moves
MIN_GAP_PX = 1.0  # eyes with a smaller gap in the source image are closed already
# Landmarks around each eye that a blink does not move; the eyeball's texture follows them.
_SOCKETS = ((33, 133, 226, 244, 229, 231, 223, 27, 23), (263, 362, 446, 464, 449, 451, 443, 257, 253))


@dataclass(frozen=True)
class Lids:
    """Hold the landmarks (468, 3) px of the source image and warp its eyelids and eyeballs."""

    landmarks: Array

    def close(self, vertices: Array) -> tuple[Array, Array]:
        """Close the eyelids of a mesh (468, 3) px where they are nearly closed; returns the target vertices and their
        texture coordinates (468, 3) px in the source image."""
        target, texture = vertices.copy(), self.landmarks.copy()
        for contour in EYE_CONTOURS:
            lower, upper = list(contour[1:8]), list(contour[9:])
            down, gap = _gaps(self.landmarks, lower, upper)
            share = _opening_share(vertices, self.landmarks, contour)
            near = np.maximum(CLOSING_SHARE - share, 0) / CLOSING_SHARE
            wanted = np.where(gap < MIN_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
            step = (share - wanted)[:, None] * down
            target[upper, :2] += (1 - LOWER_LID_SHARE) * step
            target[lower, :2] -= LOWER_LID_SHARE * step
            closing = np.where(gap < MIN_GAP_PX, 0, np.clip(1 - share, 0, 1))
            texture[upper, :2] -= (SKIN_OFFSET * closing)[:, None] * down
        return target, texture

    def move_eyeballs(self, vertices: Array, flow: Array, still_px: float, shift: Array) -> None:
        """Write the backward flow of the eyeballs into flow (2, S, S) px: between the lids it follows the eye socket of
        the mesh (468, 3) px and the iris displacement shift (2,) px, which fades towards the eye's corners. Eyes that
        move by less than still_px are left out."""
        for contour, socket in zip(EYE_CONTOURS, _SOCKETS, strict=True):
            points = vertices[list(contour), :2]
            low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
            high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, flow.shape[1])
            moved = np.abs(vertices[list(socket), :2] - self.landmarks[list(socket), :2]).max()
            if (high <= low).any() or max(moved, np.abs(shift).max()) < still_px:
                continue
            y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
            weight = _iris_weight(x, y, points)
            pixels = np.stack([x - weight * shift[0], y - weight * shift[1], np.ones_like(x)], -1)
            pixels = pixels @ self._fit_socket(vertices, socket)
            flow[:, low[1] : high[1], low[0] : high[0]] = pixels.transpose(2, 0, 1)

    def _fit_socket(self, vertices: Array, socket: tuple[int, ...]) -> Array:
        """Fit the affine map (3, 2) from px of the frame (x, y, 1) to px of the source image by least squares over the
        landmarks of an eye socket."""
        now = np.c_[vertices[list(socket), :2], np.ones(len(socket))]
        return np.asarray(np.linalg.lstsq(now, self.landmarks[list(socket), :2], rcond=None)[0], np.float64)


def _iris_weight(x: Array, y: Array, contour: Array) -> Array:
    """Weight pixels by their share of the iris displacement: 1 in the eye's middle, 0 at the corners of its contour
    (16, 2) px."""
    across = contour[8] - contour[0]
    along = ((x - contour[0, 0]) * across[0] + (y - contour[0, 1]) * across[1]) / max(float(across @ across), 1e-6)
    return smoothstep(np.minimum(along, 1 - along) / CORNER_WIDTH)


def _gaps(landmarks: Array, lower: list[int], upper: list[int]) -> tuple[Array, Array]:
    """Measure the vectors (7, 2) from upper to lower lid and their lengths (7,)."""
    down = landmarks[lower, :2] - landmarks[upper, :2]
    return down, np.linalg.norm(down, axis=-1)


def _opening_share(vertices: Array, source: Array, contour: tuple[int, ...]) -> Array:
    """Measure the gaps (7,) of an eye's lid pairs along the source's gaps, as shares of them."""
    lower, upper = list(contour[1:8]), list(contour[9:])
    down, length = _gaps(source, lower, upper)
    gap, _ = _gaps(vertices, lower, upper)
    share: Array = (gap * down).sum(-1) / np.maximum(length**2, 1e-6)
    return share
