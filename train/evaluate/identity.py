"""Embed faces with dlib's recognition network (dlib.net, 99.38 % on LFW), to measure identity. For evaluation only.

Embeddings have 128 numbers; a Euclidean distance below 0.6 means the same person. The weights come with the wheel
`face-recognition-models` (CC0), whose own code is not imported: it needs a package that no longer exists.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError

SAME_PERSON = 0.6  # embeddings at a smaller distance are of one person
CHIP_PX = 150  # side of the aligned face crop that the network takes
MARGIN = 0.25  # margin around dlib's mean shape on each side, relative to its square
NETWORK = "models/dlib_face_recognition_resnet_model_v1.dat"
# Our landmarks for dlib's five points and their places in its mean shape: outer and inner corner of the eye on the
# right of the picture, of the one on the left, base of the nose.
LANDMARKS = (263, 362, 33, 133, 2)
PLACES = ((0.860, 0.213), (0.646, 0.229), (0.121, 0.214), (0.334, 0.229), (0.490, 0.628))


class FaceRecogniser:
    """Embed faces with dlib's ResNet, deterministically."""

    def __init__(self) -> None:
        """Load the network. Raises InputError where the extra [train] is not installed."""
        package = find_spec("face_recognition_models")
        if package is None or package.origin is None or find_spec("dlib") is None:
            raise InputError("To tell faces apart dlib and its network are wanted: pip install 'kdtalker[train]'.")
        import dlib

        self._network = dlib.face_recognition_model_v1(str(Path(package.origin).parent / NETWORK))

    def embed(self, image: NDArray[np.uint8], landmarks: Array) -> Array:
        """Embed (128,) the face with these landmarks (468, 3) in an image (H, W, 3) RGB."""
        from skimage.transform import estimate_transform

        places = (MARGIN + np.array(PLACES)) / (1 + 2 * MARGIN) * CHIP_PX
        points = landmarks[list(LANDMARKS), :2]
        alignment = estimate_transform("similarity", points, places)  # type: ignore[no-untyped-call]
        chip = cv2.warpAffine(
            image, alignment.params[:2], (CHIP_PX, CHIP_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(self._network.compute_face_descriptor(chip), np.float32)


def identity_distance(one: Array, other: Array) -> float:
    """Compute the Euclidean distance of two embeddings (128,)."""
    return float(np.linalg.norm(one - other))
