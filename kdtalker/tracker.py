"""Finds faces and follows them: BlazeFace detector, 468-point face mesh, lid contours from the iris model.

The three networks are MediaPipe's (Apache-2.0), run by LiteRT. A face is a value: what the tracker knows of the
last frame is handed back to it with the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.litert import LiteRTModel
from kdtalker.motion import Array

Image = NDArray[np.uint8]

LANDMARKS = 468
# The rings of landmarks around each eye, in the order in which the iris model reports its first 16 contour points:
# lower lid from the outer corner to the inner one, then upper lid likewise without the corners.
EYE_CONTOURS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
)
EYE_LOWER, EYE_UPPER, EYE_OUTER, EYE_INNER = (145, 374), (159, 386), (33, 263), (133, 362)
LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))  # inner lips, upper and lower
MOUTH_CORNERS = (78, 308)

_DETECTOR_SIDE_PX, _MESH_SIDE_PX, _IRIS_SIDE_PX = 128, 192, 64
_MIN_DETECTION, _MIN_PRESENCE = 0.5, 0.5
_MIN_OVERLAP = 0.3  # boxes that overlap more are one face
_REGION_MARGIN = 1.5  # the mesh network looks at the face's box times this
_IRIS_MARGIN = 2.3  # the iris network looks at the eye's width times this


@dataclass(frozen=True)
class Region:
    """A square of the picture, turned upright: centre and side in px, angle in radians (clockwise)."""

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, side_px: int) -> Array:
        """The 2x3 matrix from a crop of side_px to picture coordinates (pixel centres at whole numbers)."""
        scale = self.side / side_px
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        middle = (side_px - 1) / 2
        return np.array(
            [
                [cos, -sin, self.x - cos * middle + sin * middle],
                [sin, cos, self.y - sin * middle - cos * middle],
            ],
            np.float32,
        )


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
        return _region_around(self.landmarks[:, :2], self.landmarks[list(EYE_OUTER), :2])


def mouth_opening(landmarks: Array) -> Array:
    """Gap of the inner lips over the distance of the outer eye corners: (..., 468, 3) to (...)."""
    gap = landmarks[..., LIP_PAIRS[0][0], :2] - landmarks[..., LIP_PAIRS[0][1], :2]
    opening: Array = np.linalg.norm(gap, axis=-1) / outer_eye_distance(landmarks)
    return opening


def eye_opening(landmarks: Array) -> Array:
    """Gap of the lids over the eye's width, mean of both eyes: (..., 468, 3) to (...)."""

    def distance(one: tuple[int, int], other: tuple[int, int]) -> Array:
        length: Array = np.linalg.norm(landmarks[..., one, :2] - landmarks[..., other, :2], axis=-1)
        return length

    opening: Array = (distance(EYE_UPPER, EYE_LOWER) / distance(EYE_OUTER, EYE_INNER)).mean(-1)
    return opening


def outer_eye_distance(landmarks: Array) -> Array:
    """Distance of the outer eye corners: (..., 468, 3) to (...)."""
    distance: Array = np.linalg.norm(landmarks[..., EYE_OUTER[0], :2] - landmarks[..., EYE_OUTER[1], :2], axis=-1)
    return distance


class FaceTracker:
    """The three networks. Holds nothing of what it has seen; not for use by several threads at once."""

    def __init__(self) -> None:
        self._detector = LiteRTModel("face_detection_short_range.tflite")
        self._mesh = LiteRTModel("face_landmark.tflite")
        self._iris = LiteRTModel("iris_landmark.tflite")

    def find(self, image: Image, *, everywhere: bool = False) -> list[Face]:
        """Faces of a still picture (H, W, 3), the largest first. Looks harder where the first look finds none, or
        `everywhere` is wanted: at smaller and larger scales and with the picture turned."""
        faces: list[Face] = []
        for look in _looks(image):
            regions = look.to_picture(self._detect(look.image))
            faces += [face for region in regions if (face := self._fit_twice(image, region)) is not None]
            if faces and look.last_of_its_kind and not everywhere:
                break
        return sorted(_distinct(faces), key=lambda face: -face.box[2] * face.box[3])

    def find_in(self, image: Image, region: Region) -> Face | None:
        """The face in a region that somebody else has found."""
        return self._fit_twice(image, region)

    def follow(self, image: Image, last: Face | None) -> Face | None:
        """The face of one film frame after another; looks anew where `last` is None or its face is lost."""
        if last is not None and (face := self._fit(image, last.region)) is not None:
            return face
        regions = self._detect(image)
        if last is not None:
            regions.sort(key=lambda region: np.hypot(region.x - last.region.x, region.y - last.region.y))
        return self._fit_twice(image, regions[0]) if regions else None

    def follow_film(self, frames: Iterable[Image]) -> Iterator[Face | None]:
        """One face a frame, None where there is none."""
        face = None
        for frame in frames:
            face = self.follow(frame, face)
            yield face

    def _fit_twice(self, image: Image, region: Region) -> Face | None:
        face = self._fit(image, region)
        return face and self._fit(image, face.region)

    def _fit(self, image: Image, region: Region) -> Face | None:
        crop, matrix = _crop(image, region, _MESH_SIDE_PX)
        points, presence_logit = self._mesh(crop.astype(np.float32) / 255)
        presence = float(_sigmoid(presence_logit.ravel())[0])
        if presence < _MIN_PRESENCE:
            return None
        points = points.reshape(LANDMARKS, 3)
        landmarks = np.empty((LANDMARKS, 3), np.float32)
        landmarks[:, :2] = _apply(matrix, points[:, :2])
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
        crop, matrix = _crop(image, region, _IRIS_SIDE_PX)
        contours, _ = self._iris((crop[:, ::-1] if mirrored else crop).astype(np.float32) / 255)
        points = contours.reshape(-1, 3)[: len(contour), :2]
        if mirrored:
            points = np.stack([_IRIS_SIDE_PX - 1 - points[:, 0], points[:, 1]], -1)
        return _apply(matrix, points)

    def _detect(self, image: Image) -> list[Region]:
        """Regions of the faces, the surest first."""
        height, width = image.shape[:2]
        side = max(height, width)
        whole = Region((width - 1) / 2, (height - 1) / 2, side, 0.0)
        crop, matrix = _crop(image, whole, _DETECTOR_SIDE_PX)
        boxes, logits = self._detector(crop.astype(np.float32) / 127.5 - 1)
        scores = _sigmoid(logits.reshape(-1))
        sure = scores > _MIN_DETECTION
        values = (boxes.reshape(-1, 16)[sure] / _DETECTOR_SIDE_PX).astype(np.float32)
        centres = _anchors()[sure]
        values[:, 0:2] += centres
        values[:, 4:] += np.tile(centres, 6)
        merged = _weighted_nms(values, scores[sure])
        pixel_scale = side / _DETECTOR_SIDE_PX
        regions = []
        for box in merged:
            centre = _apply(matrix, box[None, :2] * _DETECTOR_SIDE_PX - 0.5)[0]
            eyes = _apply(matrix, box[4:8].reshape(2, 2) * _DETECTOR_SIDE_PX - 0.5)
            across = eyes[1] - eyes[0]
            longer = float(max(box[2], box[3])) * _DETECTOR_SIDE_PX * pixel_scale
            regions.append(
                Region(
                    float(centre[0]), float(centre[1]), _REGION_MARGIN * longer, float(np.arctan2(across[1], across[0]))
                )
            )
        return regions


@dataclass(frozen=True)
class _Look:
    """A changed view of the picture and the 2x3 matrix that leads back from it. Faces are gathered from all views
    of a kind before the search may end."""

    image: Image
    matrix: Array
    last_of_its_kind: bool

    def to_picture(self, regions: list[Region]) -> list[Region]:
        scale = float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))
        turn = float(np.arctan2(self.matrix[1, 0], self.matrix[0, 0]))
        found = []
        for region in regions:
            x, y = _apply(self.matrix, np.array([[region.x, region.y]], np.float32))[0]
            found.append(Region(float(x), float(y), region.side * scale, region.angle + turn))
        return found


def _looks(image: Image) -> Iterator[_Look]:
    """As it is, twice as far away, quarter and eighth turns, then overlapping tiles of ever smaller parts."""
    height, width = image.shape[:2]
    x, y, side = (width - 1) / 2, (height - 1) / 2, max(height, width)
    kinds = [[Region(x, y, side, 0.0)], [Region(x, y, 2 * side, 0.0)]]
    kinds += [[Region(x, y, 1.5 * side, float(np.deg2rad(turn)))] for turn in (90, -90, 45, -45, 180)]
    for parts in (2, 3, 5):
        tile = 1.4 * side / parts
        rows, columns = (np.arange(tile / 2, length + tile / 2, tile / 2) for length in (height, width))
        kinds.append([Region(float(column), float(row), tile, 0.0) for row in rows for column in columns])
    for views in kinds:
        for view in views:
            crop, matrix = _crop(image, view, 2 * _DETECTOR_SIDE_PX)
            yield _Look(crop, matrix, view is views[-1])


def _crop(image: Image, region: Region, side_px: int) -> tuple[Image, Array]:
    """The region as a square picture, black outside, and the matrix that leads back to the picture."""
    matrix = region.to_picture(side_px)
    shrink = int(region.side / side_px / 2)
    if shrink > 1:  # sample from a smaller picture, so that no detail folds into noise
        small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        onto = (matrix / shrink).astype(np.float32)
        onto[:, 2] += 0.5 / shrink - 0.5
    else:
        small, onto = image, matrix
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(small, onto, (side_px, side_px), flags=flags), np.uint8), matrix


def _apply(matrix: Array, points: Array) -> Array:
    """(N, 2) points through a 2x3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def _region_around(points: Array, eyes: Array) -> Region:
    """The upright square around all points, with the margin that the mesh network was trained with."""
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    upright = points @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Region(float(x), float(y), _REGION_MARGIN * float((high - low).max()), angle)


@cache
def _anchors() -> Array:
    """Centres (896, 2) of the detector's anchors in 0..1: 2 a cell at stride 8, 6 a cell at stride 16."""
    grids = []
    for cells, repeat in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells, repeat, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _weighted_nms(boxes: Array, scores: Array) -> list[Array]:
    """Merges overlapping boxes (N, 16; centre and size first) by their score-weighted mean."""
    left = list(np.argsort(-scores))
    merged = []
    while left:
        overlap = np.array([_overlap(boxes[left[0]], boxes[other]) for other in left])
        group = [index for index, shared in zip(left, overlap, strict=True) if shared > _MIN_OVERLAP]
        merged.append(np.average(boxes[group], axis=0, weights=scores[group]))
        left = [index for index in left if index not in group]
    return merged


def _overlap(one: Array, other: Array) -> float:
    """Intersection over union of two boxes given as centre x, y, width, height."""
    low = np.maximum(one[:2] - one[2:4] / 2, other[:2] - other[2:4] / 2)
    high = np.minimum(one[:2] + one[2:4] / 2, other[:2] + other[2:4] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(one[2:4]) + np.prod(other[2:4]) - shared + 1e-9)


def _distinct(faces: list[Face]) -> list[Face]:
    """Drops faces that were found twice."""
    kept: list[Face] = []
    for face in faces:
        left, top, width, height = face.box
        box = np.array([left + width / 2, top + height / 2, width, height])
        for other in kept:
            o_left, o_top, o_width, o_height = other.box
            if _overlap(box, np.array([o_left + o_width / 2, o_top + o_height / 2, o_width, o_height])) > _MIN_OVERLAP:
                break
        else:
            kept.append(face)
    return kept


def _sigmoid(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -80, 80))), np.float32)


def region_of_box(left: float, top: float, right: float, bottom: float) -> Region:
    """The upright region around a face box that another detector gave."""
    side = _REGION_MARGIN * max(right - left, bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, side, 0.0)
