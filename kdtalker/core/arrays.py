"""Array types, and the curve that eases between two values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Image = NDArray[np.uint8]  # (H, W, 3) RGB


def smoothstep(progress: ArrayLike) -> Array:
    """Ease from 0 to 1 with zero slope at both ends: 3p^2 - 2p^3, p clipped to 0..1; any shape."""
    inside = np.clip(progress, 0, 1)
    return np.asarray(inside**2 * (3 - 2 * inside), np.float32)
