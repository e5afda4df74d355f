"""Facial regions in LivePortrait's 21 implicit keypoints: lips, eyes, and the mask of its absolute mode.

The keypoints are learned without labels (arXiv 2407.03168, section 3.1). The indices are those of LivePortrait's own
program for regional animation and for absolute driving.
"""

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import KEYPOINTS

LIP_KEYPOINTS = (6, 12, 14, 17, 19, 20)  # indices of the keypoints that move with the lips
EYE_KEYPOINTS = (11, 13, 15, 16, 18)  # indices of the keypoints that move with the eyelids


def absolute_mode_mask() -> Array:
    """Return the mask (21, 3) of absolute mode: 1 where the expression is the driving video's, 0 where the source's."""
    driven = np.zeros((KEYPOINTS, 3), np.float32)
    driven[[1, 2, 6, *range(11, 21)]] = 1
    driven[[3, 4], 1] = 1
    driven[[5, 8], 2] = 1
    driven[9, 1:] = 1
    return driven
