"""Finds faces: the BlazeFace short-range detector, and where it sees none, harder looks at the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.region import REGION_MARGIN, Region, transformed

_SIDE_PX = 128
_MIN_DETECTION = 0.5
_MIN_OVERLAP = 0.3  # boxes that overlap more are one face


@dataclass(frozen=True)
class Look:
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
            x, y = transformed(self.matrix, np.array([[region.x, region.y]], np.float32))[0]
            found.append(Region(float(x), float(y), region.side * scale, region.angle + turn))
        return found


def looks(image: Image) -> Iterator[Look]:
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
            picture, matrix = view.crop(image, 2 * _SIDE_PX)
            yield Look(picture, matrix, view is views[-1])


class FaceDetector:
    """The network. Holds nothing of what it has seen; several threads may use it."""

    def __init__(self) -> None:
        self._network = LiteRTModel("face_detection_short_range.tflite")

    def find(self, image: Image) -> list[Region]:
        """Regions of the faces, the surest first."""
        height, width = image.shape[:2]
        side = max(height, width)
        whole = Region((width - 1) / 2, (height - 1) / 2, side, 0.0)
        picture, matrix = whole.crop(image, _SIDE_PX)
        boxes, logits = self._network(picture.astype(np.float32) / 127.5 - 1)
        scores = sigmoid(logits.reshape(-1))
        sure = scores > _MIN_DETECTION
        values = (boxes.reshape(-1, 16)[sure] / _SIDE_PX).astype(np.float32)
        centres = _anchors()[sure]
        values[:, 0:2] += centres
        values[:, 4:] += np.tile(centres, 6)
        merged = _weighted_nms(values, scores[sure])
        pixel_scale = side / _SIDE_PX
        regions = []
        for box in merged:
            centre = transformed(matrix, box[None, :2] * _SIDE_PX - 0.5)[0]
            eyes = transformed(matrix, box[4:8].reshape(2, 2) * _SIDE_PX - 0.5)
            across = eyes[1] - eyes[0]
            longer = float(max(box[2], box[3])) * _SIDE_PX * pixel_scale
            regions.append(
                Region(
                    float(centre[0]), float(centre[1]), REGION_MARGIN * longer, float(np.arctan2(across[1], across[0]))
                )
            )
        return regions


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
        group = [index for index in left if is_one_face(boxes[left[0]], boxes[index])]
        merged.append(np.average(boxes[group], axis=0, weights=scores[group]))
        left = [index for index in left if index not in group]
    return merged


def is_one_face(one: Array, other: Array) -> bool:
    """Whether two boxes (centre x, y, width, height, ...) overlap so much: by intersection over union."""
    low = np.maximum(one[:2] - one[2:4] / 2, other[:2] - other[2:4] / 2)
    high = np.minimum(one[:2] + one[2:4] / 2, other[:2] + other[2:4] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared > _MIN_OVERLAP * (float(np.prod(one[2:4]) + np.prod(other[2:4])) - shared)


def sigmoid(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -80, 80))), np.float32)
