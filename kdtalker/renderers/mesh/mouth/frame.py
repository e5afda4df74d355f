"""Describe the lips of a frame in the mouth's frame, in which the resting mouth is level and the skull stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.compiled import kernel
from kdtalker.renderers.mesh.curves import catmull_rom, soft_polygon
from kdtalker.renderers.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP

WIDTH_PX, HEIGHT_PX = 160, 120  # of an image in the mouth's frame
PX_PER_WIDTH = 125.0  # px for the width of the resting mouth
ORIGIN = (79.5, 44.0)  # px of the middle between the mouth's corners, at rest
TEXTURE_PX = 80  # height of a teeth texture, as wide as the frame
LEAST_LOGIT = 1e-3  # smallest distance of a texture's values from 0 and 1
CELL_PX = 4  # the shading network works on cells of this side
MOST_SLANT = 1.5  # of the normal, that of a head that is turned by 56 degrees
CHIN = (152, 148, 377, 176, 400)  # vertices whose motion is the jaw's
STEADY = (1, 2, 4, 5, 195, 98, 327, 205, 425, 50, 280)  # vertices near the mouth that do not speak
INNER_LIPS = [*INNER_UPPER_LIP, *INNER_LOWER_LIP[1:-1]]  # from corner to corner above, then below without corners
GEOMETRY_SIZE = 2 * len(INNER_LIPS) + 4  # numbers of a lip shape's geometry
MAPS = 7  # channels of the shading network's input


@dataclass(frozen=True)
class MouthFrame:
    """Hold the affine matrix (2, 3) from px of the mouth's frame to px of the picture, and normal (2,): by how much a
    point one mouth width behind the lips is displaced, in mouth widths."""

    matrix: Array
    normal: Array

    @staticmethod
    def of(resting: Array, aspect: float) -> MouthFrame:
        """Compute the frame from a resting mesh (468, 3) px. aspect: width of the mouth over height of the face, in the
        head's own axes, so that a turned head is foreshortened."""
        first, second = resting[61], resting[291]
        (ax, ay, az), (dx, dy, dz) = (second - first).tolist(), ((resting[152] - resting[10]) * aspect).tolist()
        linear = np.array([[ax, dx], [ay, dy]], np.float32)
        normal = np.array([ay * dz - az * dy, az * dx - ax * dz]) / (math.hypot(ax, ay, az) + 1e-6)
        corner = (first + second)[:2] / 2 - linear @ np.array(ORIGIN) / PX_PER_WIDTH
        depth = np.clip(_invert(linear) @ normal, -MOST_SLANT, MOST_SLANT)
        matrix = np.concatenate([linear / PX_PER_WIDTH, corner[:, None]], axis=1)
        return MouthFrame(matrix.astype(np.float32), depth.astype(np.float32))

    @cached_property
    def inverse(self) -> Array:
        """Return the linear map (2, 2) from displacements in px of the picture to px of the frame."""
        return _invert(self.matrix[:, :2])

    def to_frame(self, points: Array) -> Array:
        """Map points (N, 2) px of the picture to px of the frame."""
        return np.asarray((points - self.matrix[:, 2]) @ self.inverse.T, np.float32)


@dataclass(frozen=True)
class LipShape:
    """Hold the lips of one frame in the mouth's frame, as input of the shading network: mask (HEIGHT_PX, WIDTH_PX) of
    the opening, maps (MAPS, cells, cells) and geometry (GEOMETRY_SIZE,); jaw (2,) px, the motion of the chin."""

    mask: Array
    maps: Array
    geometry: Array
    jaw: Array

    @staticmethod
    def of(points: Array, chin: Array, normal: Array) -> LipShape:
        """Describe lips by the points (N, 2) px of their inner contours, from corner to corner and back below, the
        chin's motion (2,) px and the normal (2,) of a `MouthFrame`."""
        count = len(INNER_UPPER_LIP)
        upper = catmull_rom(points[:count])
        lower = catmull_rom(np.concatenate([points[:1], points[count:], points[count - 1 : count]]))
        mask = soft_polygon((HEIGHT_PX, WIDTH_PX), np.concatenate([upper, lower[-2:0:-1]]), 0.6)
        coarse = cv2.resize(mask, (WIDTH_PX // CELL_PX, HEIGHT_PX // CELL_PX), interpolation=cv2.INTER_AREA)
        maps = _draw_maps(np.asarray(coarse, np.float32), *(curve[np.argsort(curve[:, 0])] for curve in (upper, lower)))
        shape = (points - ORIGIN) / PX_PER_WIDTH
        geometry = np.concatenate([4 * shape.ravel(), 6 * chin / PX_PER_WIDTH, 2 * normal])
        return LipShape(mask, maps, geometry.astype(np.float32), chin.astype(np.float32))

    @staticmethod
    def of_mesh(frame: MouthFrame, vertices: Array, resting: Array) -> LipShape:
        """Describe the lips of a mesh (468, 3) px; resting is the same with a neutral expression."""
        moved = (vertices - resting)[list(CHIN), :2].mean(0)
        chin = frame.inverse @ moved
        return LipShape.of(frame.to_frame(vertices[INNER_LIPS, :2]), chin, frame.normal)


def _invert(linear: Array) -> Array:
    """Invert a linear map (2, 2)."""
    (a, b), (c, d) = linear.tolist()
    determinant = a * d - b * c
    return np.asarray(np.array([[d, -b], [-c, a]]) / (determinant or 1e-12), np.float64)


@kernel()
def _draw_maps(mask: Array, upper: Array, lower: Array) -> Array:
    """Draw the input (MAPS, cells, cells) of the shading network from a mask (cells, cells) of the opening and its
    upper and lower curve (N, 2) px, from left to right."""
    height, width = mask.shape
    maps = np.empty((MAPS, height, width), np.float32)
    columns = CELL_PX * (np.arange(width) + 0.5) - 0.5
    tops, bottoms = np.interp(columns, upper[:, 0], upper[:, 1]), np.interp(columns, lower[:, 0], lower[:, 1])
    for y in range(height):
        row = CELL_PX * (y + 0.5) - 0.5
        for x in range(width):
            top, bottom = tops[x], bottoms[x]
            gap = max(bottom - top, 0.0)
            maps[0, y, x] = 2 * mask[y, x] - 1
            maps[1, y, x] = min(max((row - top) / 20, -2.0), 2.0)
            maps[2, y, x] = min(max((bottom - row) / 20, -2.0), 2.0)
            maps[3, y, x] = min(max((row - top) / max(gap, 4.0), -0.5), 1.5)
            maps[4, y, x] = gap / 20
            maps[5, y, x] = (columns[x] - ORIGIN[0]) / 60
            maps[6, y, x] = (row - ORIGIN[1]) / 40
    return maps


def frame_aspect(identity: Array) -> float:
    """Compute the width of the mouth over the height of the face of canonical vertices (468, 3)."""
    width, height = (float(np.linalg.norm(identity[a] - identity[b])) for a, b in ((291, 61), (152, 10)))
    return width / height
