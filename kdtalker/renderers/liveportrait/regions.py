"""Which of the 21 keypoints of the published model carry the lips, the eyes, and the motion of its absolute mode.

LivePortrait learned its keypoints without labels (arXiv 2407.03168, section 3.1); these are the ones that its own
program moves where it animates one of these regions alone, or carries a driver's expression over as it is.
"""

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import KEYPOINTS

LIP_KEYPOINTS = (6, 12, 14, 17, 19, 20)
EYE_KEYPOINTS = (11, 13, 15, 16, 18)


def driven_coordinates() -> Array:
    """(21, 3): 1 for the coordinates of an expression that absolute mode takes from the driver, 0 for the source's."""
    driven = np.zeros((KEYPOINTS, 3), np.float32)
    driven[[1, 2, 6, *range(11, 21)]] = 1
    driven[[3, 4], 1] = 1
    driven[[5, 8], 2] = 1
    driven[9, 1:] = 1
    return driven
