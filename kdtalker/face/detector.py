"""Detect faces: BlazeFace (short range), and a search over scales, rotations and tiles of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.region import REGION_MARGIN, Region, transform_points

_SIDE_PX = 128  # input of the network
_MIN_DETECTION = 0.5  # least probability of a face
_MIN_OVERLAP = 0.3  # boxes with a larger intersection over union are the same face


@dataclass(frozen=True)
class View:
    """Hold a resampled view of a picture and the affine matrix (2, 3) from its px to those of the picture.

    ends_stage: last view of a search stage; a search ends after the first stage in which a face was found."""

    image: Image
    matrix: Array
    ends_stage: bool

    def to_picture(self, regions: list[Region]) -> list[Region]:
        """Map regions in px of the view to px of the picture."""
        scale = float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))
        turn = float(np.arctan2(self.matrix[1, 0], self.matrix[0, 0]))
        found = []
        for region in regions:
            x, y = transform_points(self.matrix, np.array([[region.x, region.y]], np.float32))[0]
            found.append(Region(float(x), float(y), region.side * scale, region.angle + turn))
        return found


def search_views(image: Image) -> Iterator[View]:
    """Generate views of a picture (H, W, 3) to detect faces in, the cheapest first: full size, half scale, rotations by
    90, 45 and 180 degrees, then overlapping tiles of decreasing size."""
    height, width = image.shape[:2]
    x, y, side = (width - 1) / 2, (height - 1) / 2, max(height, width)
    stages = [[Region(x, y, side, 0.0)], [Region(x, y, 2 * side, 0.0)]]
    stages += [[Region(x, y, 1.5 * side, float(np.deg2rad(turn)))] for turn in (90, -90, 45, -45, 180)]
    for parts in (2, 3, 5):
        tile = 1.4 * side / parts
        rows, columns = (np.arange(tile / 2, length + tile / 2, tile / 2) for length in (height, width))
        stages.append([Region(float(column), float(row), tile, 0.0) for row in rows for column in columns])
    for stage in stages:
        for region in stage:
            picture, matrix = region.crop(image, 2 * _SIDE_PX)
            yield View(picture, matrix, region is stage[-1])


class FaceDetector:
    """Run the BlazeFace short-range network. Stateless and thread-safe."""

    def __init__(self) -> None:
        self._network = LiteRTModel("face_detection_short_range.tflite")

    def find(self, image: Image) -> list[Region]:
        """Detect faces in a picture (H, W, 3): their regions, by falling confidence."""
        height, width = image.shape[:2]
        side = max(height, width)
        whole = Region((width - 1) / 2, (height - 1) / 2, side, 0.0)
        picture, matrix = whole.crop(image, _SIDE_PX)
        boxes, logits = self._network(picture.astype(np.float32) / 127.5 - 1)
        scores = sigmoid(logits.reshape(-1))
        detected = scores > _MIN_DETECTION
        values = (boxes.reshape(-1, 16)[detected] / _SIDE_PX).astype(np.float32)
        centres = _anchors()[detected]
        values[:, 0:2] += centres
        values[:, 4:] += np.tile(centres, 6)
        merged = _weighted_nms(values, scores[detected])
        pixel_scale = side / _SIDE_PX
        regions = []
        for box in merged:
            centre = transform_points(matrix, box[None, :2] * _SIDE_PX - 0.5)[0]
            eyes = transform_points(matrix, box[4:8].reshape(2, 2) * _SIDE_PX - 0.5)
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
    """Compute the detector's anchor centres (896, 2) in 0..1: 2 a cell at stride 8, 6 a cell at stride 16."""
    grids = []
    for cells, repeat in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells, repeat, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _weighted_nms(boxes: Array, scores: Array) -> list[Array]:
    """Merge overlapping boxes (N, 16; centre and size first) by their score-weighted mean (BlazeFace's blending)."""
    left = list(np.argsort(-scores))
    merged = []
    while left:
        group = [index for index in left if boxes_overlap(boxes[left[0]], boxes[index])]
        merged.append(np.average(boxes[group], axis=0, weights=scores[group]))
        left = [index for index in left if index not in group]
    return merged


def boxes_overlap(one: Array, other: Array) -> bool:
    """Test whether two boxes (centre x, y, width, height, ...) have an intersection over union above 0.3."""
    low = np.maximum(one[:2] - one[2:4] / 2, other[:2] - other[2:4] / 2)
    high = np.minimum(one[:2] + one[2:4] / 2, other[:2] + other[2:4] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared > _MIN_OVERLAP * (float(np.prod(one[2:4]) + np.prod(other[2:4])) - shared)


def sigmoid(value: Array) -> Array:
    """Compute the logistic function, logits clipped to -80..80; any shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -80, 80))), np.float32)
