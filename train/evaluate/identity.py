"""Who a face is: 128 numbers from dlib's recognition network (dlib.net, 99.38 % on LFW). For evaluation only.

Euclidean distance tells faces apart: 0 is one picture, below 0.6 one person. The network stands in the wheel
`face-recognition-models` (CC0), whose own code is not imported: it needs a package that is no longer there.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError

SAME_PERSON = 0.6
CHIP_PX = 150
MARGIN = 0.25  # of the mean shape's square, on each side
NETWORK = "models/dlib_face_recognition_resnet_model_v1.dat"
# Landmarks that dlib's five-point model means, and where its mean shape has them: outer and inner corner of the eye on
# the right of the picture, of the one on the left, base of the nose.
LANDMARKS = (263, 362, 33, 133, 2)
PLACES = ((0.860, 0.213), (0.646, 0.229), (0.121, 0.214), (0.334, 0.229), (0.490, 0.628))


class FaceRecogniser:
    """The network; `embed` is the same for the same picture."""

    def __init__(self) -> None:
        """Raises InputError where the extra [train] is not installed."""
        package = find_spec("face_recognition_models")
        if package is None or package.origin is None or find_spec("dlib") is None:
            raise InputError("To tell faces apart dlib and its network are wanted: pip install 'kdtalker[train]'.")
        import dlib

        self._network = dlib.face_recognition_model_v1(str(Path(package.origin).parent / NETWORK))

    def embed(self, image: NDArray[np.uint8], landmarks: Array) -> Array:
        """(128,) of the face with these landmarks (468, 3) in a picture (H, W, 3) RGB."""
        from skimage.transform import estimate_transform

        places = (MARGIN + np.array(PLACES)) / (1 + 2 * MARGIN) * CHIP_PX
        placed = estimate_transform("similarity", landmarks[list(LANDMARKS), :2], places)
        chip = cv2.warpAffine(
            image, placed.params[:2], (CHIP_PX, CHIP_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(self._network.compute_face_descriptor(chip), np.float32)


def identity_distance(one: Array, other: Array) -> float:
    """Between two embeddings (128,), 0 and up; below SAME_PERSON it is one person."""
    return float(np.linalg.norm(one - other))
