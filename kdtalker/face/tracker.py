"""Finds faces and follows them: BlazeFace detector, 468-point face mesh, lid contours from the iris model.

The three networks are MediaPipe's (Apache-2.0), run by LiteRT. A face is a value: what the tracker knows of the
last frame is handed back to it with the next one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.face.detector import FaceDetector, is_one_face, looks, sigmoid
from kdtalker.face.landmarks import EYE_CONTOURS, EYE_OUTER, LANDMARKS
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.region import Region, region_around, transformed

_log = logging.getLogger(__name__)

_MESH_SIDE_PX, _IRIS_SIDE_PX = 192, 64

_MIN_PRESENCE = 0.5

_IRIS_MARGIN = 2.3  # the iris network looks at the eye's width times this


@dataclass(frozen=True)
class Face:
    """A face in a picture: landmarks (468, 3) in px, x right, y down, z inward, lids as the iris model sees them;
    presence 0..1 is the mesh network's own confidence."""

    landmarks: Array
    presence: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, width, height in px."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])

    @property
    def eye_distance_px(self) -> float:
        """Distance between the eyes' centres."""
        right, left = (self.landmarks[list(contour), :2].mean(0) for contour in EYE_CONTOURS)
        return float(np.linalg.norm(right - left))

    @property
    def region(self) -> Region:
        """Where to look for this face in the next frame."""
        return region_around(self.landmarks[:, :2], self.landmarks[list(EYE_OUTER), :2])


class FaceTracker:
    """The detector and the two networks that look closer. Holds nothing of what it has seen; several threads may use
    it."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._mesh = LiteRTModel("face_landmark.tflite")
        self._iris = LiteRTModel("iris_landmark.tflite")

    def find(self, image: Image, *, everywhere: bool = False) -> list[Face]:
        """Faces of a still picture (H, W, 3), the largest first. Looks harder where the first look finds none, or
        `everywhere` is wanted: at smaller and larger scales and with the picture turned."""
        faces: list[Face] = []
        for look in looks(image):
            regions = look.to_picture(self._detector.find(look.image))
            faces += [face for region in regions if (face := self._fit_twice(image, region)) is not None]
            if faces and look.last_of_its_kind and not everywhere:
                break
        return sorted(_distinct(faces), key=lambda face: -face.box[2] * face.box[3])

    def find_in(self, image: Image, region: Region) -> Face | None:
        """The face in a region that somebody else has found."""
        return self._fit_twice(image, region)

    def follow(self, image: Image, last: Face | None) -> Face | None:
        """The face of one film frame after another: the largest where `last` is None, the nearest to it where it is
        lost."""
        if last is not None and (face := self._fit(image, last.region)) is not None:
            return face
        regions = self._detector.find(image)
        if last is None:
            regions.sort(key=lambda region: -region.side)
        else:
            regions.sort(key=lambda region: np.hypot(region.x - last.region.x, region.y - last.region.y))
        return self._fit_twice(image, regions[0]) if regions else None

    def follow_film(self, frames: Iterable[Image]) -> Iterator[Face | None]:
        """One face a frame, None where there is none."""
        face = None
        for frame in frames:
            face = self.follow(frame, face)
            yield face

    def follow_driving(self, frames: Iterable[Image]) -> Iterator[Face | None]:
        """Track the face of a driving video, one frame a piece, None where it is lost: the largest face of the first
        frame that has one, searched for at all scales, and from there on the same.

        Logs in how many frames it was lost, also where the iteration is closed early. Raises InputError after the last
        frame of a video without a face.
        """
        count, lost, last = 0, 0, None
        with contextlib.suppress(GeneratorExit):
            for frame in frames:
                face = self.follow(frame, last) if last else next(iter(self.find(frame)), None)
                count, lost, last = count + 1, lost + (face is None), face or last
                yield face
            if last is None:
                raise InputError(
                    "No face was found in the driving film; wanted one that looks roughly into the camera."
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
        points, presence_logit = self._mesh(crop.astype(np.float32) / 255)
        presence = float(sigmoid(presence_logit.ravel())[0])
        if presence < _MIN_PRESENCE:
            return None
        points = points.reshape(LANDMARKS, 3)
        landmarks = np.empty((LANDMARKS, 3), np.float32)
        landmarks[:, :2] = transformed(matrix, points[:, :2])
        landmarks[:, 2] = points[:, 2] * (region.side / _MESH_SIDE_PX)
        for mirrored, contour in zip((False, True), EYE_CONTOURS, strict=True):
            landmarks[list(contour), :2] = self._lids(image, landmarks[list(contour), :2], mirrored)
        return Face(landmarks, presence)

    def _lids(self, image: Image, contour: Array, mirrored: bool) -> Array:
        """The contour (16, 2) of one eye as the iris network sees it. It knows eyes whose outer corner is left."""
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
        return transformed(matrix, points)


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


def _distinct(faces: list[Face]) -> list[Face]:
    """Drops faces that were found twice."""
    kept: list[Face] = []
    for face in faces:
        if not any(is_one_face(_centred(face), _centred(other)) for other in kept):
            kept.append(face)
    return kept


def _centred(face: Face) -> Array:
    """The face's box as centre x, y, width, height."""
    left, top, width, height = face.box
    return np.array([left + width / 2, top + height / 2, width, height], np.float32)
