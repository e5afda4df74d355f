"""Indices of the 468 landmarks of MediaPipe's face mesh, and measures of mouth and eye opening."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array

LANDMARKS = 468  # of one face

# Contour of each eye, the person's right one first, in the order of the iris model's first 16 contour points: lower lid
# from the outer corner to the inner one, then upper lid likewise without the corners.
EYE_CONTOURS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
)

# Middle of the lids and corners of the right and the left eye.
EYE_LOWER, EYE_UPPER, EYE_OUTER, EYE_INNER = (145, 374), (159, 386), (33, 263), (133, 362)

LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))  # (upper, lower) on the inner lips, middle first

MOUTH_CORNERS = (78, 308)  # ends of the inner lips


def lip_gap(values: Array) -> Array:
    """Subtract the upper from the lower landmark of each inner lip pair: (468, ...) to (pairs, ...)."""
    upper, lower = np.array(LIP_PAIRS).T
    gap: Array = values[lower] - values[upper]
    return gap


def mouth_opening(landmarks: Array) -> Array:
    """Measure the gap of the inner lips over the distance of the outer eye corners: (..., 468, 3) to (...)."""
    gap = landmarks[..., LIP_PAIRS[0][0], :2] - landmarks[..., LIP_PAIRS[0][1], :2]
    opening: Array = np.linalg.norm(gap, axis=-1) / outer_eye_distance(landmarks)
    return opening


def eye_opening(landmarks: Array) -> Array:
    """Measure the mean aspect ratio of both eyes: (..., 468, 3) to (...)."""
    opening: Array = eye_ratios(landmarks).mean(-1)
    return opening


def eye_ratios(landmarks: Array) -> Array:
    """Measure the aspect ratio, lid gap over width, of the person's right and left eye: (..., 468, 3) to (..., 2)."""

    def distance(one: tuple[int, int], other: tuple[int, int]) -> Array:
        length: Array = np.linalg.norm(landmarks[..., one, :2] - landmarks[..., other, :2], axis=-1)
        return length

    return distance(EYE_UPPER, EYE_LOWER) / distance(EYE_OUTER, EYE_INNER)


def outer_eye_distance(landmarks: Array) -> Array:
    """Measure the distance of the outer eye corners in the image plane: (..., 468, 3) to (...)."""
    distance: Array = np.linalg.norm(landmarks[..., EYE_OUTER[0], :2] - landmarks[..., EYE_OUTER[1], :2], axis=-1)
    return distance
