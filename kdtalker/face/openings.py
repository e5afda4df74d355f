"""Measure eye and lip opening ratios as LivePortrait defines them (arXiv 2407.03168, section 3.3), from landmarks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.protocols import Openings
from kdtalker.face.landmarks import LIP_PAIRS, MOUTH_CORNERS, eye_opening
from kdtalker.face.tracker import FaceTracker, hold_last


def measure_openings(frames: Iterable[Image], tracker: FaceTracker) -> Openings:
    """Measure the ratios of the face that `FaceTracker.follow_driving` tracks in T frames (H, W, 3); frames in which it
    is lost repeat the last face. Raises InputError for a video without a face."""
    faces = hold_last(tracker.follow_driving(frames))
    ratios = [(float(eye_opening(face.landmarks)), lip_ratio(face.landmarks)) for face in faces]
    eyes, lips = np.array(ratios, np.float32).T
    return Openings(eyes, lips)


def lip_ratio(landmarks: Array) -> float:
    """Measure the gap of the inner lips over the mouth's width, landmarks (468, 3) to a scalar."""
    gap, width = (landmarks[one, :2] - landmarks[other, :2] for one, other in (LIP_PAIRS[0], MOUTH_CORNERS))
    return float(np.linalg.norm(gap) / np.linalg.norm(width))
