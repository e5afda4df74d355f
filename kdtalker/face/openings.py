"""How far eyes and lips are open, as LivePortrait counts it (arXiv 2407.03168, section 3.3), read off the face mesh."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.protocols import Openings
from kdtalker.face.landmarks import EYE_INNER, EYE_LOWER, EYE_OUTER, EYE_UPPER, LIP_PAIRS, MOUTH_CORNERS
from kdtalker.face.tracker import FaceTracker, hold_last


def measured(frames: Iterable[Image], tracker: FaceTracker) -> Openings:
    """Measure the openings of the face that `FaceTracker.follow_driving` tracks; frames without it show what the last
    (or the first) with it does. Raises InputError for a film without a face."""
    faces = hold_last(tracker.follow_driving(frames))
    ratios = [(float(eye_ratios(face.landmarks).mean()), lip_ratio(face.landmarks)) for face in faces]
    eyes, lips = np.array(ratios, np.float32).T
    return Openings(eyes, lips)


def eye_ratios(landmarks: Array) -> Array:
    """(468, 3) to the lid gap over the width of either eye (2,): the person's right one, which stands left, first."""
    upper, lower, outer, inner = (
        landmarks[list(points), :2] for points in (EYE_UPPER, EYE_LOWER, EYE_OUTER, EYE_INNER)
    )
    ratios: Array = np.linalg.norm(upper - lower, axis=1) / np.linalg.norm(outer - inner, axis=1)
    return ratios


def lip_ratio(landmarks: Array) -> float:
    """(468, 3) to the inner lips' gap over the mouth's width."""
    gap, width = (landmarks[one, :2] - landmarks[other, :2] for one, other in (LIP_PAIRS[0], MOUTH_CORNERS))
    return float(np.linalg.norm(gap) / np.linalg.norm(width))
