"""Warp the eyelids: close them without a slit, and move the eyeballs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.face.landmarks import EYE_CONTOURS
from kdtalker.renderers.mesh.eyes.lid_layer import LidLayer

# Lids nearer than this share of the source's gap are drawn still nearer, so that no slit is left when they close.
CLOSING_SHARE = 0.4
OVERLAP = 0.3  # of the source's gap, by which a shut upper lid covers the lower one
CORNER_WIDTH = 0.35  # of the eye's width, along which the sclera stretches when the iris moves
MIN_GAP_PX = 1.0  # eyes with a smaller gap in the source image are closed already
# Width of an eye over the other's at which it begins to be seen well enough for lids to be drawn over it, and is.
HIDDEN_WIDTH = (0.3, 0.5)
# Landmarks around each eye that a blink does not move; the eyeball's texture follows them.
_SOCKETS = ((33, 133, 226, 244, 229, 231, 223, 27, 23), (263, 362, 446, 464, 449, 451, 443, 257, 253))


@dataclass(frozen=True)
class Lids:
    """Hold the landmarks (468, 3) px of the source image and the layer of each eye's lids; warp eyelids and
    eyeballs."""

    landmarks: Array
    layers: tuple[LidLayer, ...]

    @staticmethod
    def of(picture: Image, landmarks: Array) -> Lids:
        """Synthesise the lids of a picture (S, S, 3) with landmarks (468, 3) px."""
        layers = (LidLayer.of(picture, landmarks[list(contour), :2]) for contour in EYE_CONTOURS)
        return Lids(landmarks, tuple(layers))

    def close(self, vertices: Array) -> Array:
        """Close the eyelids of a mesh (468, 3) px where they are nearly closed; returns the target vertices."""
        target = vertices.copy()
        for contour in EYE_CONTOURS:
            upper = list(contour[9:])
            down, gap = _gaps(self.landmarks[list(contour), :2])
            share = _opening_share(vertices[list(contour), :2], self.landmarks[list(contour), :2])
            near = np.maximum(CLOSING_SHARE - share, 0) / CLOSING_SHARE
            wanted = np.where(gap < MIN_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
            target[upper, :2] += (share - wanted)[:, None] * down
        return target

    def draw(self, frame: Image, vertices: Array) -> None:
        """Draw the lids of closing eyes into a warped frame (S, S, 3) with mesh (468, 3) px from `close`, in place."""
        contours = [vertices[list(contour), :2] for contour in EYE_CONTOURS]
        widths = np.array([np.linalg.norm(contour[8] - contour[0]) for contour in contours])
        seen = smoothstep((widths / widths.max() - HIDDEN_WIDTH[0]) / (HIDDEN_WIDTH[1] - HIDDEN_WIDTH[0]))
        for layer, indices, socket, contour, share in zip(
            self.layers, EYE_CONTOURS, _SOCKETS, contours, seen, strict=True
        ):
            source = self.landmarks[list(indices), :2]
            _, gap = _gaps(source)
            if gap.max() < MIN_GAP_PX:
                continue
            to_source = self._fit_socket(vertices, socket)
            opening = _opening_share(np.c_[contour, np.ones(len(contour))] @ to_source, source)
            layer.draw(frame, to_source, contour, closing=1 - float(opening[1:-1].mean()), share=float(share))

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


def _gaps(contour: Array) -> tuple[Array, Array]:
    """Measure the vectors (7, 2) from upper to lower lid of a contour (16, 2), and their lengths (7,)."""
    down = contour[1:8] - contour[9:]
    return down, np.linalg.norm(down, axis=-1)


def _opening_share(contour: Array, source: Array) -> Array:
    """Measure the gaps (7,) of a contour's lid pairs (16, 2) along those of the source's, as shares of them."""
    down, length = _gaps(source)
    gap, _ = _gaps(contour)
    share: Array = (gap * down).sum(-1) / np.maximum(length**2, 1e-6)
    return share
