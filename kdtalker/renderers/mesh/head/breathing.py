"""Lift the shoulders by the breath of a motion."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.motion import Motion
from kdtalker.renderers.mesh.source import RING_POSITIONS, MeshSource
from kdtalker.renderers.mesh.topology import FACE_OVAL

RISE = 0.022  # of the shoulders at the height of a breath, in outer-eye distances
RING_WEIGHT = (0.0, 0.25, 0.7, 1.0, 0.0)  # of each ring below the face; the border of the square stays
BELOW = (0.3, 0.8)  # cosine to the face's downward axis between which the weight goes from 0 to 1


def breath_shift(source: MeshSource, motion: Motion) -> Array:
    """Compute the shift (T, R, 3) px of the ring vertices by a motion."""
    points = source.landmarks
    down = points[152, :2] - points[10, :2]
    along = source.rings[:, :2] - points[list(FACE_OVAL), :2].mean(0)
    cosine = along @ down / (np.linalg.norm(along, axis=1) * np.linalg.norm(down))
    weight = np.repeat(RING_WEIGHT, len(source.rings) // len(RING_POSITIONS))
    weight = weight * smoothstep((cosine - BELOW[0]) / (BELOW[1] - BELOW[0]))
    unit = np.linalg.norm(points[33, :2] - points[263, :2])
    up = np.append(-down / np.linalg.norm(down), 0)
    return np.asarray(RISE * unit * motion.breath[:, :, None] * weight[:, None] * up, np.float32)
