"""Track dirty tiles, in which a frame may differ from the source image, so that work follows the person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.raster import Spans

Box = tuple[NDArray[Any], NDArray[Any]]  # two corners (2,) px, x and y

TILES = 32  # a side; a row of tiles is drawn from the first to the last tile that may change


@dataclass(frozen=True)
class DirtyTiles:
    """Hold distance (TILES, TILES), px by which something must move to change a tile: 0 where the inpainted background
    is not the picture's, else the distance to the person; tile, the side of a tile in px; side, that of the picture."""

    distance: Array
    tile: int
    side: int

    @staticmethod
    def of(picture: Image, background: Image, person: Array) -> DirtyTiles:
        """Measure a source image (S, S, 3), its background (S, S, 3) and its person mask (S, S) 0..1."""
        side = len(picture)
        tile = -(-side // TILES)
        distance = cv2.distanceTransform((person == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        distance[(picture != background).any(-1)] = 0
        padded = np.pad(distance, (0, TILES * tile - side), constant_values=np.inf)
        return DirtyTiles(padded.reshape(TILES, tile, TILES, tile).min((1, 3)), tile, side)

    def columns(self, moved_px: float, *boxes: Box) -> Spans:
        """Return the columns of each row that may change where nothing moves by more than moved_px, and those of boxes,
        each by its corners."""
        near = self.distance <= moved_px + 2  # sampling reaches a little further
        first, last = near.argmax(1), TILES - near[:, ::-1].argmax(1)
        tiles = np.where(near.any(1), (first, last), ((TILES,), (0,))) * self.tile  # rows without begin after their end
        columns: Spans = np.minimum(np.repeat(tiles.T, self.tile, axis=0)[: self.side], self.side).astype(np.int32)
        for low, high in boxes:
            left, top = (max(math.floor(value), 0) for value in low)
            right, bottom = (min(math.ceil(value) + 1, self.side) for value in high)
            rows = columns[top : max(bottom, 0)]
            np.minimum(rows[:, 0], left, out=rows[:, 0])
            np.maximum(rows[:, 1], right, out=rows[:, 1])
        return columns
