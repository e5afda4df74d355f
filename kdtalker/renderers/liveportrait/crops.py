"""Square crops of a face, as the published networks were trained with: LivePortrait's and KDTalker's.

Both are laid around the 68 landmarks of the iBUG 300-W scheme, jaw and brows without the forehead, here taken out of
MediaPipe's 468. A square that hangs over the picture's border is padded, never squeezed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.face.region import Region

LANDMARKS_68 = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # outer and inner lips
)  # fmt: skip
SOURCE_SIDE, SOURCE_RISE = 2.3, 0.125  # LivePortrait: times the face's extent; of the side, up along the face
DRIVING_SIDE, DRIVING_RISE = 2.2, 0.1
EYE_REACH, MOUTH_REACH, MOUTH_SHARE = 2.0, 1.8, 0.1  # KDTalker, after FFHQ's alignment (arXiv 1812.04948)

Square = Callable[[Array], Region]


class _Axes(NamedTuple):
    """Points (2,) and vectors (2,) in px: the middle between the eyes, from the eye on the left of the picture to the
    other one, and from that middle to the middle of the mouth's corners."""

    eyes: Array
    across: Array
    down: Array


def _axes(points: Array) -> _Axes:
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    eyes = (left + right) / 2
    return _Axes(eyes, right - left, (points[48] + points[54]) / 2 - eyes)


def source_square(landmarks: Array) -> Region:
    """LivePortrait's crop of a source image: upright along the line from the eyes to the mouth. landmarks (468, 3)."""
    points = _standard(landmarks)
    down = _axes(points).down
    return _square_around(points, down / np.linalg.norm(down), SOURCE_SIDE, SOURCE_RISE)


def driving_square(landmarks: Array) -> Region:
    """LivePortrait's crop of one frame of a driving video, along the picture's axes. landmarks (468, 3)."""
    return _square_around(_standard(landmarks), np.array([0.0, 1.0]), DRIVING_SIDE, DRIVING_RISE)


def speech_square(landmarks: Array) -> Region:
    """KDTalker's crop, which its denoiser was trained with: the axis-parallel box around FFHQ's turned square.
    landmarks (468, 3)."""
    eyes, across, down = _axes(_standard(landmarks))
    x = across - (-down[1], down[0])
    x *= max(EYE_REACH * np.linalg.norm(across), MOUTH_REACH * np.linalg.norm(down)) / np.linalg.norm(x)
    middle = eyes + MOUTH_SHARE * down
    return Region(float(middle[0]), float(middle[1]), float(2 * np.abs(x).sum()), 0.0)


def mean_square(squares: Iterable[Region]) -> Region:
    """The mean box of squares that are not turned."""
    x, y, side = np.mean([(square.x, square.y, square.side) for square in squares], axis=0)
    return Region(float(x), float(y), float(side), 0.0)


PORTRAIT_SQUARES: dict[str, Square] = {"speech": speech_square, "driving": source_square}  # by framing


def _standard(landmarks: Array) -> Array:
    """(468, 3) to the 68 points (68, 2)."""
    points: Array = landmarks[list(LANDMARKS_68), :2].astype(np.float64)
    return points


def _square_around(points: Array, down: Array, side: float, rise: float) -> Region:
    """`side` times the longer extent of points (N, 2) px along the unit vector `down` and across it; its middle is
    theirs, raised against `down` by `rise` of the side."""
    axes = np.stack([(down[1], -down[0]), down])
    along = points @ axes.T
    low, high = along.min(0), along.max(0)
    length = side * float((high - low).max())
    x, y = ((low + high) / 2 - (0, rise * length)) @ axes
    return Region(float(x), float(y), length, float(np.arctan2(axes[0, 1], axes[0, 0])))
