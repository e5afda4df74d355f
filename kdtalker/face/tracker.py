"""Track faces: BlazeFace detector, face mesh with attention to lips (MediaPipe Face Landmarker), eyelids from the iris
model.

The three networks are MediaPipe's (Apache-2.0), run by LiteRT. The tracker is stateless: the face of the last frame is
passed in with the next frame.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.face.detector import FaceDetector, boxes_overlap, search_views, sigmoid
from kdtalker.face.landmarks import EYE_CONTOURS, EYE_OUTER, LANDMARKS
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.region import Region, region_around, transform_points

_log = logging.getLogger(__name__)

_MESH_SIDE_PX, _IRIS_SIDE_PX = 256, 64  # inputs of the networks

_MIN_PRESENCE = 0.5  # least probability of the mesh network that its input shows a face

_IRIS_MARGIN = 2.3  # side of the iris network's input, in widths of the eye


@dataclass(frozen=True)
class Face:
    """Hold the landmarks (468, 3) of a face in px, x right, y down, z inward, with eyelids from the iris model, and
    presence 0..1, the mesh network's confidence."""

    landmarks: Array
    presence: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Compute the bounding box: left, top, width, height in px."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])

    @property
    def eye_distance_px(self) -> float:
        """Measure the distance between the centres of the eyes in px."""
        right, left = (self.landmarks[list(contour), :2].mean(0) for contour in EYE_CONTOURS)
        return float(np.linalg.norm(right - left))

    @property
    def region(self) -> Region:
        """Compute the region in which to track this face in the next frame."""
        return region_around(self.landmarks[:, :2], self.landmarks[list(EYE_OUTER), :2])


class FaceTracker:
    """Run the detector, the face mesh and the iris network. Stateless and thread-safe."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._mesh = LiteRTModel("face_landmarks_detector.tflite")
        self._iris = LiteRTModel("iris_landmark.tflite")

    def find(self, image: Image, *, everywhere: bool = False) -> list[Face]:
        """Find the faces of a still picture (H, W, 3), by falling size. Searches other scales, rotations and tiles
        until a face is found, or with `everywhere` in any case."""
        faces: list[Face] = []
        for view in search_views(image):
            regions = view.to_picture(self._detector.find(view.image))
            faces += [face for region in regions if (face := self._fit_twice(image, region)) is not None]
            if faces and view.ends_stage and not everywhere:
                break
        return sorted(_deduplicate(faces), key=lambda face: -face.box[2] * face.box[3])

    def find_in(self, image: Image, region: Region) -> Face | None:
        """Fit the face mesh in a region from another detector; None where it shows no face."""
        return self._fit_twice(image, region)

    def follow(self, image: Image, last: Face | None) -> Face | None:
        """Track a face into the next frame (H, W, 3). Where `last` is None the largest face is detected, where it is
        lost the one nearest to it; returns None where there is none."""
        if last is not None and (face := self._fit(image, last.region)) is not None:
            return face
        regions = self._detector.find(image)
        if last is None:
            regions.sort(key=lambda region: -region.side)
        else:
            regions.sort(key=lambda region: np.hypot(region.x - last.region.x, region.y - last.region.y))
        return self._fit_twice(image, regions[0]) if regions else None

    def follow_film(self, frames: Iterable[Image]) -> Iterator[Face | None]:
        """Track the largest face through a video, frame by frame; yields None for a frame without a face."""
        face = None
        for frame in frames:
            face = self.follow(frame, face)
            yield face

    def follow_driving(self, frames: Iterable[Image]) -> Iterator[Face | None]:
        """Track the face of a driving video: the largest of the first frame with a face, searched for in all views,
        and then the same one. Yields None for a frame in which it is lost.

        Logs the number of lost frames, also when the iteration is closed early. Raises InputError after the last frame
        of a video without a face.
        """
        count, lost, last = 0, 0, None
        with contextlib.suppress(GeneratorExit):
            for frame in frames:
                face = self.follow(frame, last) if last else next(iter(self.find(frame)), None)
                count, lost, last = count + 1, lost + (face is None), face or last
                yield face
            if last is None:
                raise InputError(
                    "No face was found in the driving video, wanted one that looks roughly into the camera; choose "
                    "another video."
                )
        if last is not None and lost:
            _log.warning(
                "The face was lost in %d of %d frames of the driving video; the motion there is a guess.", lost, count
            )

    def _fit_twice(self, image: Image, region: Region) -> Face | None:
        face = self._fit(image, region)
        return face and self._fit(image, face.region)

    def _fit(self, image: Image, region: Region) -> Face | None:
        crop, matrix = region.crop(image, _MESH_SIDE_PX)
        points, presence_logit, _ = self._mesh(crop.astype(np.float32) / 255)
        presence = float(sigmoid(presence_logit.ravel())[0])
        if presence < _MIN_PRESENCE:
            return None
        points = points.reshape(-1, 3)[:LANDMARKS]  # without the ten of the irises
        landmarks = np.empty((LANDMARKS, 3), np.float32)
        landmarks[:, :2] = transform_points(matrix, points[:, :2])
        landmarks[:, 2] = points[:, 2] * (region.side / _MESH_SIDE_PX)
        for mirrored, contour in zip((False, True), EYE_CONTOURS, strict=True):
            landmarks[list(contour), :2] = self._fit_eyelids(image, landmarks[list(contour), :2], mirrored)
        return Face(landmarks, presence)

    def _fit_eyelids(self, image: Image, contour: Array, mirrored: bool) -> Array:
        """Refine the contour (16, 2) px of one eye by the iris network, which is trained on eyes whose outer corner is
        on the left; others are mirrored."""
        outer, inner = contour[0], contour[8]
        across = outer - inner if mirrored else inner - outer
        middle, width = (outer + inner) / 2, float(np.linalg.norm(across))
        region = Region(
            float(middle[0]), float(middle[1]), _IRIS_MARGIN * width, float(np.arctan2(across[1], across[0]))
        )
        crop, matrix = region.crop(image, _IRIS_SIDE_PX)
        contours, _ = self._iris((crop[:, ::-1] if mirrored else crop).astype(np.float32) / 255)
        points = contours.reshape(-1, 3)[: len(contour), :2]
        if mirrored:
            points = np.stack([_IRIS_SIDE_PX - 1 - points[:, 0], points[:, 1]], -1)
        return transform_points(matrix, points)


def hold_last(faces: Iterable[Face | None]) -> Iterator[Face]:
    """Fill the gaps of a track, one face a frame: a lost face repeats the last one; before the first one, the first.

    Yields nothing where there is no face at all."""
    last, waiting = None, 0
    for face in faces:
        last = face or last
        waiting += 1
        if last is not None:
            yield from [last] * waiting
            waiting = 0


def _deduplicate(faces: list[Face]) -> list[Face]:
    """Drop duplicate detections (non-maximum suppression)."""
    kept: list[Face] = []
    for face in faces:
        if not any(boxes_overlap(_centre_box(face), _centre_box(other)) for other in kept):
            kept.append(face)
    return kept


def _centre_box(face: Face) -> Array:
    """Convert the face's bounding box to centre x, y, width, height."""
    left, top, width, height = face.box
    return np.array([left + width / 2, top + height / 2, width, height], np.float32)
