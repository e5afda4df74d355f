"""The picture and the square around its face: cut out for the networks, pasted back with a soft edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import FRAMINGS
from kdtalker.face.portrait import find_face
from kdtalker.face.region import Region
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.liveportrait.crops import PORTRAIT_SQUARES

SIDE_PX = 512  # what the generator paints
EDGE = 0.03  # of the square's side, over which its border fades into the photograph; 88 % of its area is opaque


@dataclass(frozen=True)
class Canvas:
    """A picture (H, W, 3) and what `paste` needs, made once: to_picture (2, 3), the matrix from the square's px to the
    picture's; left and top of the rectangle that the square covers, and its mask there (h, w, 1), 0..1."""

    picture: Image
    to_picture: Array
    left: int
    top: int
    mask: Array

    @staticmethod
    def find(
        picture: Image,
        tracker: FaceTracker,
        *,
        face: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        crop: bool = False,
        framing: str = FRAMINGS[0],
    ) -> Canvas:
        """Find the face and the square around it that the framing names; face and box as in `Portrait.find`. `crop`
        makes the axis-parallel square, cut from the picture before it is scaled down and resampled to 512 px, the
        picture.

        Raises InputError where there is no such face.
        """
        shown, chosen, scale = find_face(picture, tracker, face=face, box=box, crop=crop)
        square = PORTRAIT_SQUARES[framing](chosen.landmarks)
        if not crop:
            return Canvas.around(shown, square)
        x, y = (scale * (middle + 0.5) - 0.5 for middle in (square.x, square.y))  # whole numbers are centres of px
        return Canvas.around(*_cropped(shown, Region(x, y, scale * square.side, square.angle)))

    @staticmethod
    def around(picture: Image, square: Region) -> Canvas:
        """The canvas of a square that has been found."""
        to_picture = square.to_picture(SIDE_PX)
        height, width = picture.shape[:2]
        corners = np.array([[0, 0], [SIDE_PX, 0], [0, SIDE_PX], [SIDE_PX, SIDE_PX]]) - 0.5
        corners = corners @ to_picture[:, :2].T + to_picture[:, 2]
        left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(0)) + 1, 0, (width, height)).astype(int)
        onto = to_picture.copy()
        onto[:, 2] -= left, top
        soft = cv2.warpAffine(_soft_square(), onto, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        return Canvas(picture, to_picture, int(left), int(top), np.asarray(soft, np.float32)[..., None])

    @property
    def face(self) -> Image:
        """The square (512, 512, 3); what lies outside the picture repeats its border."""
        return cut_out(self.picture, self.to_picture)

    def on(self, picture: Image) -> Canvas:
        """The same square of another picture (H, W, 3)."""
        return replace(self, picture=picture)

    def paste(self, face: Image) -> Image:
        """A new picture with `face` (512, 512, 3) in the square's place; outside the mask it is the photograph's."""
        rows, columns = self.mask.shape[:2]
        onto = self.to_picture.copy()
        onto[:, 2] -= self.left, self.top
        drawn = _lay_out(face, onto, columns, rows)
        result = self.picture.copy()
        area = result[self.top : self.top + rows, self.left : self.left + columns]
        blended = area + self.mask * (np.asarray(drawn, np.float32) - area)
        area[:] = np.rint(blended).astype(np.uint8)
        return result


def _cropped(picture: Image, square: Region) -> tuple[Image, Region]:
    """The part of the picture that the square would cover unturned, moved and cut to hold nothing else, as (512, 512,
    3), and the square there, rounded to whole px of the picture."""
    wanted, middle = round(square.side), np.array([square.x, square.y])
    side = min(wanted, *picture.shape[:2])
    start = np.rint(middle + 0.5 - wanted / 2).astype(int)
    left, top = np.clip(np.rint(middle + 0.5 - side / 2).astype(int), 0, np.array(picture.shape[1::-1]) - side)
    way = cv2.INTER_AREA if side > SIDE_PX else cv2.INTER_CUBIC
    face = cv2.resize(picture[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=way)
    scale = SIDE_PX / side
    x, y = (start - (left, top) + wanted / 2) * scale - 0.5
    return np.asarray(face, np.uint8), Region(float(x), float(y), wanted * scale, square.angle)


def cut_out(picture: Image, to_picture: Array) -> Image:
    """The square (512, 512, 3) that the matrix leads from, sampled without folding detail into noise."""
    shrink = int(np.sqrt(abs(np.linalg.det(to_picture[:, :2]))))
    onto = to_picture
    if shrink > 1:
        picture = np.asarray(
            cv2.resize(picture, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA), np.uint8
        )
        onto = np.asarray(to_picture / shrink, np.float32)
        onto[:, 2] += 0.5 / shrink - 0.5
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(picture, onto, (SIDE_PX, SIDE_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(square, np.uint8)


def _lay_out(face: Image, onto: Array, columns: int, rows: int) -> Image:
    """The square (512, 512, 3) led by the matrix into (rows, columns, 3)."""
    side = round(SIDE_PX * float(np.sqrt(abs(np.linalg.det(onto[:, :2])))))
    if side < SIDE_PX:  # sample from a smaller square, so that no detail folds into noise
        face = np.asarray(cv2.resize(face, (max(side, 1), max(side, 1)), interpolation=cv2.INTER_AREA), np.uint8)
        step = SIDE_PX / len(face)
        onto = np.column_stack([onto[:, :2] * step, onto[:, 2] + onto[:, :2].sum(1) * (step - 1) / 2])
    drawn = cv2.warpAffine(face, onto, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(drawn, np.uint8)


def _soft_square() -> Array:
    """(512, 512): 1 inside, falling smoothly to 0 at the border."""
    from_border = (np.minimum(np.arange(SIDE_PX), np.arange(SIDE_PX)[::-1])) / (EDGE * SIDE_PX)
    ramp = np.clip(from_border, 0, 1)
    ramp = ramp**2 * (3 - 2 * ramp)
    return np.asarray(np.outer(ramp, ramp), np.float32)
