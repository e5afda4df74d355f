"""Crop the face of a source image for the networks and paste generated faces back with a feathered edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import FRAMINGS
from kdtalker.core.options import LONGEST_SIDE_PX
from kdtalker.face.portrait import find_face
from kdtalker.face.region import Region, warp_square
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.liveportrait.crops import PORTRAIT_SQUARES

SIDE_PX = 512  # side of the generator's frames
FEATHER_SHARE = 0.03  # width of the feathered border over the crop's side; 88 % of the area stays opaque


@dataclass(frozen=True)
class LivePortraitCanvas:
    """Hold a source image (H, W, 3), its face crop and the precomputed inputs of `paste`.

    to_picture (2, 3): affine matrix from px of the crop to px of the image; left, top: corner of the crop's bounding
    box in the image; mask (h, w, 1): feathered blending weight 0..1 in that box.
    """

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
        max_side: int = LONGEST_SIDE_PX,
        framing: str = FRAMINGS[0],
    ) -> LivePortraitCanvas:
        """Find the face and its square crop by the framing's rule; face, box and max_side as in `Portrait.find`. crop:
        the axis-parallel crop, resampled from the full-size image to 512 px, becomes the canvas's picture.

        Raises InputError where there is no such face.
        """
        shown, chosen, scale = find_face(picture, tracker, face=face, box=box, crop=crop, max_side=max_side)
        square = PORTRAIT_SQUARES[framing](chosen.landmarks)
        if not crop:
            return LivePortraitCanvas.around(shown, square)
        x, y = (scale * (middle + 0.5) - 0.5 for middle in (square.x, square.y))  # pixel centres lie at whole numbers
        return LivePortraitCanvas.around(*_crop_canvas(shown, Region(x, y, scale * square.side, square.angle)))

    @staticmethod
    def around(picture: Image, square: Region) -> LivePortraitCanvas:
        """Build the canvas of a known square crop."""
        to_picture = square.to_picture(SIDE_PX)
        height, width = picture.shape[:2]
        corners = np.array([[0, 0], [SIDE_PX, 0], [0, SIDE_PX], [SIDE_PX, SIDE_PX]]) - 0.5
        corners = corners @ to_picture[:, :2].T + to_picture[:, 2]
        left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(0)) + 1, 0, (width, height)).astype(int)
        onto = to_picture.copy()
        onto[:, 2] -= left, top
        soft = cv2.warpAffine(_feather_mask(), onto, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        return LivePortraitCanvas(picture, to_picture, int(left), int(top), np.asarray(soft, np.float32)[..., None])

    @property
    def face(self) -> Image:
        """Crop the face (512, 512, 3); px outside the image repeat its border."""
        return warp_crop(self.picture, self.to_picture)

    def on(self, picture: Image) -> LivePortraitCanvas:
        """Return the same crop of another image (H, W, 3)."""
        return replace(self, picture=picture)

    def paste(self, face: Image) -> Image:
        """Blend a face (512, 512, 3) into a copy of the source image; outside the mask the source stays as it is."""
        rows, columns = self.mask.shape[:2]
        onto = self.to_picture.copy()
        onto[:, 2] -= self.left, self.top
        warped = _warp_into(face, onto, columns, rows)
        result = self.picture.copy()
        area = result[self.top : self.top + rows, self.left : self.left + columns]
        blended = area + self.mask * (np.asarray(warped, np.float32) - area)
        area[:] = np.rint(blended).astype(np.uint8)
        return result


def _crop_canvas(picture: Image, square: Region) -> tuple[Image, Region]:
    """Cut the axis-parallel square out of the image, shifted and clipped to lie within it, and resample it to
    (512, 512, 3); return it and the face's square in it, rounded to whole px of the image."""
    wanted, middle = round(square.side), np.array([square.x, square.y])
    side = min(wanted, *picture.shape[:2])
    start = np.rint(middle + 0.5 - wanted / 2).astype(int)
    left, top = np.clip(np.rint(middle + 0.5 - side / 2).astype(int), 0, np.array(picture.shape[1::-1]) - side)
    interpolation = cv2.INTER_AREA if side > SIDE_PX else cv2.INTER_CUBIC
    face = cv2.resize(picture[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=interpolation)
    scale = SIDE_PX / side
    x, y = (start - (left, top) + wanted / 2) * scale - 0.5
    return np.asarray(face, np.uint8), Region(float(x), float(y), wanted * scale, square.angle)


def warp_crop(picture: Image, to_picture: Array) -> Image:
    """Warp the square crop (512, 512, 3) out of an image, antialiased; to_picture (2, 3) as in the canvas."""
    shrink = int(np.sqrt(abs(np.linalg.det(to_picture[:, :2]))))
    return warp_square(picture, to_picture, SIDE_PX, shrink, cv2.INTER_CUBIC, border_mode=cv2.BORDER_REPLICATE)


def _warp_into(face: Image, onto: Array, columns: int, rows: int) -> Image:
    """Warp a face (512, 512, 3) by the matrix (2, 3) into (rows, columns, 3), antialiased."""
    side = round(SIDE_PX * float(np.sqrt(abs(np.linalg.det(onto[:, :2])))))
    if side < SIDE_PX:  # scale down first, against aliasing
        face = np.asarray(cv2.resize(face, (max(side, 1), max(side, 1)), interpolation=cv2.INTER_AREA), np.uint8)
        step = SIDE_PX / len(face)
        onto = np.column_stack([onto[:, :2] * step, onto[:, 2] + onto[:, :2].sum(1) * (step - 1) / 2])
    warped = cv2.warpAffine(face, onto, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _feather_mask() -> Array:
    """Compute the feathering mask (512, 512): 1 inside, smoothstep to 0 at the border."""
    from_border = (np.minimum(np.arange(SIDE_PX), np.arange(SIDE_PX)[::-1])) / (FEATHER_SHARE * SIDE_PX)
    ramp = np.clip(from_border, 0, 1)
    ramp = ramp**2 * (3 - 2 * ramp)
    return np.asarray(np.outer(ramp, ramp), np.float32)
