"""Square face crops as in the training data of LivePortrait and KDTalker.

Both are fitted to the 68 landmarks of iBUG 300-W (jaw and brows, no forehead), here selected from MediaPipe's 468. A
square beyond the image border is padded, never squeezed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.face.region import Region, enclosing_square

# MediaPipe indices of the 68 landmarks of iBUG 300-W, in its order.
IBUG_LANDMARKS = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # outer and inner lips
)  # fmt: skip
# LivePortrait's crops of source image and driving video: side over the face's extent, and shift up over the side.
SOURCE_SIDE, SOURCE_RISE = 2.3, 0.125
DRIVING_SIDE, DRIVING_RISE = 2.2, 0.1
# FFHQ's alignment (arXiv 1812.04948), which KDTalker uses: half side over the distance of the eyes and over that of
# eyes and mouth, and how far the centre lies from the eyes towards the mouth.
EYE_REACH, MOUTH_REACH, MOUTH_SHARE = 2.0, 1.8, 0.1

CropRule = Callable[[Array], Region]  # landmarks (468, 3) to the square crop


class _FaceAxes(NamedTuple):
    """Hold the face's axes in px, each (2,): centre of the eyes, vector from the left eye of the image to the right
    one, vector from the centre of the eyes to that of the mouth corners."""

    eyes: Array
    across: Array
    down: Array


def _face_axes(points: Array) -> _FaceAxes:
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    eyes = (left + right) / 2
    return _FaceAxes(eyes, right - left, (points[48] + points[54]) / 2 - eyes)


def source_square(landmarks: Array) -> Region:
    """Compute LivePortrait's crop of a source image, rotated so that eyes-to-mouth points down; landmarks (468, 3)."""
    points = _select_landmarks(landmarks)
    down = _face_axes(points).down
    return _square_around(points, down / np.linalg.norm(down), SOURCE_SIDE, SOURCE_RISE)


def driving_square(landmarks: Array) -> Region:
    """Compute LivePortrait's axis-parallel crop of one frame of a driving video; landmarks (468, 3)."""
    return _square_around(_select_landmarks(landmarks), np.array([0.0, 1.0]), DRIVING_SIDE, DRIVING_RISE)


def speech_square(landmarks: Array) -> Region:
    """Compute KDTalker's crop: the axis-parallel bounding box of FFHQ's rotated square; landmarks (468, 3)."""
    eyes, across, down = _face_axes(_select_landmarks(landmarks))
    x = across - (-down[1], down[0])
    x *= max(EYE_REACH * np.linalg.norm(across), MOUTH_REACH * np.linalg.norm(down)) / np.linalg.norm(x)
    middle = eyes + MOUTH_SHARE * down
    return Region(float(middle[0]), float(middle[1]), float(2 * np.abs(x).sum()), 0.0)


def mean_square(squares: Iterable[Region]) -> Region:
    """Average axis-parallel squares: mean centre and mean side."""
    x, y, side = np.mean([(square.x, square.y, square.side) for square in squares], axis=0)
    return Region(float(x), float(y), float(side), 0.0)


# The crop of a source image by the framing of the motion that drives it.
PORTRAIT_SQUARES: dict[str, CropRule] = {"speech": speech_square, "driving": source_square}


def _select_landmarks(landmarks: Array) -> Array:
    """Select the 68 iBUG landmarks (68, 2) from (468, 3)."""
    points: Array = landmarks[list(IBUG_LANDMARKS), :2].astype(np.float64)
    return points


def _square_around(points: Array, down: Array, side: float, rise: float) -> Region:
    """Fit the square around points (N, 2) px whose y axis is the unit vector `down` (2,); side and rise as in
    `enclosing_square`."""
    axes = np.stack([(down[1], -down[0]), down])
    return enclosing_square(points, axes, float(np.arctan2(axes[0, 1], axes[0, 0])), scale=side, rise=rise)
