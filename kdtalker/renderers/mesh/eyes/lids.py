"""Warp the eyelids: close them without a slit, and move the eyeballs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.core.compiled import kernel
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
class LidPose:
    """Hold both eyes of one frame: contour (2, 16, 2) px; to_source (2, 3, 2), affine maps of the sockets from px of
    the frame (x, y, 1) to px of the source image; closing (2,), 0 as open as in the source, 1 shut; seen (2,) 0..1, how
    well eyes that are turned away are seen."""

    contour: Array
    to_source: Array
    closing: Array
    seen: Array


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
        """Close the eyelids of meshes (..., 468, 3) px where they are nearly closed; returns the target vertices."""
        target = vertices.copy()
        for contour in EYE_CONTOURS:
            upper = list(contour[9:])
            down, gap = _gaps(self.landmarks[list(contour), :2])
            share = _opening_share(vertices[..., list(contour), :2], self.landmarks[list(contour), :2])
            near = np.maximum(CLOSING_SHARE - share, 0) / CLOSING_SHARE
            wanted = np.where(gap < MIN_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
            target[..., upper, :2] += (share - wanted)[..., None] * down
        return target

    def pose(self, vertices: Array) -> list[LidPose]:
        """Pose both eyes of meshes (T, 468, 3) px from `close`."""
        contours, to_source, closings = [], [], []
        for indices, socket in zip(EYE_CONTOURS, _SOCKETS, strict=True):
            contour, source = vertices[:, list(indices), :2], self.landmarks[list(indices), :2]
            fitted = _fit_affine(vertices[:, list(socket), :2], self.landmarks[list(socket), :2])
            opening = _opening_share(_homogeneous(contour) @ fitted, source)
            is_open = _gaps(source)[1].max() >= MIN_GAP_PX
            closings.append((1 - opening[:, 1:-1].mean(-1)) * is_open)
            contours.append(contour)
            to_source.append(fitted)
        widths = np.stack([np.linalg.norm(contour[:, 8] - contour[:, 0], axis=-1) for contour in contours], -1)
        seen = (widths / widths.max(-1, keepdims=True) - HIDDEN_WIDTH[0]) / (HIDDEN_WIDTH[1] - HIDDEN_WIDTH[0])
        parts = (np.stack(part, 1) for part in (contours, to_source, closings))
        return [LidPose(*frame) for frame in zip(*parts, smoothstep(seen), strict=True)]

    def draw(self, frame: Image, pose: LidPose) -> None:
        """Draw the lids of closing eyes into a warped frame (S, S, 3), in place."""
        for eye, layer in enumerate(self.layers):
            closing, share = float(pose.closing[eye]), float(pose.seen[eye])
            layer.draw(frame, pose.to_source[eye], pose.contour[eye], closing=closing, share=share)

    def move_eyeballs(self, pose: LidPose, flow: Array, still_px: float, shift: Array) -> None:
        """Write the backward flow of the eyeballs into flow (2, S, S) px: between the lids it follows the eye socket
        and the iris displacement shift (2,) px, which fades towards the eye's corners. Eyes that move by less than
        still_px are left out."""
        looks = np.abs(shift).max() >= still_px
        for points, to_source in zip(pose.contour, pose.to_source, strict=True):
            low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
            high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, flow.shape[1])
            moved = np.abs(_homogeneous(points[[0, 8]]) @ to_source - points[[0, 8]]).max()
            if (high > low).all() and (looks or moved >= still_px):
                _move_eyeball(flow, low, high, points, to_source, shift)


def _homogeneous(points: Array) -> Array:
    """Append a 1 to points (..., 2), to be mapped by an affine matrix (3, 2)."""
    return np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)


def _fit_affine(points: Array, targets: Array) -> Array:
    """Fit affine maps (T, 3, 2) from points (T, N, 2) to targets (N, 2) by least squares (normal equations)."""
    rows = _homogeneous(points.astype(np.float64))
    columns = rows.transpose(0, 2, 1)
    return np.asarray(np.linalg.solve(columns @ rows, columns @ targets), np.float64)


@kernel(fastmath=True, error_model="numpy")
def _move_eyeball(  # noqa: PLR0917 (compiled code takes no keywords)
    flow: Array, low: Array, high: Array, contour: Array, to_source: Array, shift: Array
) -> None:
    """Write the backward flow of an eyeball into flow (2, S, S) px between corners low and high (2,) px. The share of
    the iris displacement is 1 in the eye's middle and 0 at the corners of its contour (16, 2) px."""
    dx, dy = contour[8, 0] - contour[0, 0], contour[8, 1] - contour[0, 1]
    length2 = max(dx * dx + dy * dy, 1e-6)
    for y in range(low[1], high[1]):
        for x in range(low[0], high[0]):
            along = ((x - contour[0, 0]) * dx + (y - contour[0, 1]) * dy) / length2
            progress = min(max(min(along, 1 - along) / CORNER_WIDTH, 0.0), 1.0)
            weight = progress * progress * (3 - 2 * progress)
            u, v = x - weight * shift[0], y - weight * shift[1]
            for axis in range(2):
                flow[axis, y, x] = u * to_source[0, axis] + v * to_source[1, axis] + to_source[2, axis]


def _gaps(contour: Array) -> tuple[Array, Array]:
    """Measure the vectors (..., 7, 2) from upper to lower lid of contours (..., 16, 2), and their lengths (..., 7)."""
    down = contour[..., 1:8, :] - contour[..., 9:, :]
    return down, np.linalg.norm(down, axis=-1)


def _opening_share(contour: Array, source: Array) -> Array:
    """Measure the gaps (..., 7) of lid pairs of contours (..., 16, 2) along the source's, as shares of those."""
    down, length = _gaps(source)
    gap, _ = _gaps(contour)
    share: Array = (gap * down).sum(-1) / np.maximum(length**2, 1e-6)
    return share
