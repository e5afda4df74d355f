"""A portrait: the picture, and the square around its face that the renderers draw."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.face.tracker import Face, FaceTracker

SQUARE_SIDE = 2.3  # times the longer side of the face's box
SQUARE_RISE = 0.125  # of the square, by which it stands higher than the face
LONGEST_SIDE_PX = 1920  # films that phones play
LEAST_EYE_DISTANCE_PX = 24
CROP_SIDE_PX = 512
LONGEST_TO_SHORTEST = 20  # sides of a picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """picture (H, W, 3) RGB and the square's left, top and side in px; it may hang over the picture's border."""

    picture: Image
    left: int
    top: int
    side: int

    @staticmethod
    def find(
        picture: Image,
        tracker: FaceTracker,
        *,
        face: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        crop: bool = False,
    ) -> Portrait:
        """Find the face in an (H, W, 3) picture: the largest, number `face` by size from 0, or the one nearest to
        `box` (left, top, width, height in px of the picture given). The picture is made at most 1920 px long, which is
        logged; or `crop` makes the square, resampled to 512 px, the picture.

        Raises InputError where the picture is too narrow a strip, there is no face, no such face, or its eyes are less
        than 24 px apart in the picture that is made.
        """
        shown, chosen, scale = find_face(picture, tracker, face=face, box=box, crop=crop)
        square = face_square(chosen, scale)
        return _cropped(shown, *square) if crop else Portrait(shown, *square)

    @property
    def face(self) -> Image:
        """The square (side, side, 3); what lies outside the picture repeats its border."""
        rows, columns = (
            np.clip(np.arange(start, start + self.side), 0, length - 1)
            for start, length in zip((self.top, self.left), self.picture.shape[:2], strict=True)
        )
        return self.picture[rows[:, None], columns[None]]

    def on(self, picture: Image) -> Portrait:
        """The same square of another picture (H, W, 3)."""
        return replace(self, picture=picture)

    def paste(self, face: Image) -> Image:
        """A new picture with the square replaced by `face` (side, side, 3)."""
        height, width = self.picture.shape[:2]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.side, height), min(self.left + self.side, width)
        picture = self.picture.copy()
        picture[top:bottom, left:right] = face[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return picture


def find_face(
    picture: Image,
    tracker: FaceTracker,
    *,
    face: int | None,
    box: tuple[float, float, float, float] | None,
    crop: bool,
) -> tuple[Image, Face, float]:
    """Find the face as `Portrait.find` says, in the picture scaled down to 1920 px.

    Returns the picture that is to be shown (scaled down, or for `crop` as it is), the face in px of the scaled one, and
    how many px of the shown picture are one px of the scaled one.
    """
    small, shrink = _scaled_down(picture)
    if box is not None:
        box = (box[0] * shrink, box[1] * shrink, box[2] * shrink, box[3] * shrink)
    is_asked_for = face is not None or box is not None
    chosen = _choose(_all_faces(small, tracker, everywhere=is_asked_for), face, box)
    scale = 1 / shrink if crop else 1.0
    _check_eyes(chosen.eye_distance_px * scale)
    if crop:
        return picture, chosen, scale
    if shrink < 1:
        sizes = *picture.shape[1::-1], *small.shape[1::-1]
        _log.warning("The portrait of %d x %d px was scaled down to %d x %d px, which every phone plays.", *sizes)
    return small, chosen, scale


def face_square(face: Face, scale: float = 1.0) -> tuple[int, int, int]:
    """left, top, side in px of the square around a face in a picture scaled by `scale`."""
    left, top, width, height = face.box
    side = SQUARE_SIDE * max(width, height) * scale
    middle_x, middle_y = (left + width / 2) * scale, (top + height / 2) * scale - SQUARE_RISE * side
    return round(middle_x - side / 2), round(middle_y - side / 2), round(side)


def find_squares(picture: Image, tracker: FaceTracker) -> list[tuple[int, int, int]]:
    """The squares around all faces of a picture, in the order in which they are numbered."""
    small, shrink = _scaled_down(picture)
    return [face_square(face, 1 / shrink) for face in _all_faces(small, tracker, everywhere=True)]


def check_shape(picture: Image, name: str) -> None:
    """Raise InputError where a picture (H, W, 3) is a strip, which nothing can be seen in."""
    height, width = picture.shape[:2]
    if max(height, width) > LONGEST_TO_SHORTEST * min(height, width):
        raise InputError(
            f"The {name} has {width} x {height} px, wanted one side at most {LONGEST_TO_SHORTEST} times as long as the "
            "other; cut it."
        )


def _cropped(picture: Image, left: int, top: int, side: int) -> Portrait:
    """The square alone, moved and cut so that it shows nothing but the picture, resampled to 512 px."""
    side = min(side, *picture.shape[:2])
    top, left = (
        min(max(start, 0), length - side) for start, length in zip((top, left), picture.shape[:2], strict=True)
    )
    way = cv2.INTER_AREA if side > CROP_SIDE_PX else cv2.INTER_CUBIC
    square = cv2.resize(Portrait(picture, left, top, side).face, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=way)
    return Portrait(np.asarray(square, np.uint8), 0, 0, CROP_SIDE_PX)


def _scaled_down(picture: Image) -> tuple[Image, float]:
    """The picture at most 1920 px long, and by how much it was scaled. Raises InputError for a strip."""
    check_shape(picture, "portrait")
    shrink = min(1.0, LONGEST_SIDE_PX / max(picture.shape[:2]))
    if shrink == 1:
        return picture, shrink
    height, width = (round(length * shrink) for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8), shrink


def _check_eyes(distance_px: float) -> None:
    if distance_px < LEAST_EYE_DISTANCE_PX:
        raise InputError(
            f"The face is too small: its eyes are {distance_px:.0f} px apart in a picture of {LONGEST_SIDE_PX} px or "
            f"less, wanted at least {LEAST_EYE_DISTANCE_PX}; give a larger picture or cut it closer to the face."
        )


def _all_faces(picture: Image, tracker: FaceTracker, *, everywhere: bool) -> list[Face]:
    faces = tracker.find(picture, everywhere=everywhere) or _faces_of_face_alignment(picture, tracker)
    if not faces:
        raise InputError("No face was found in the picture; wanted one that looks roughly into the camera.")
    return faces


def _choose(faces: list[Face], number: int | None, box: tuple[float, float, float, float] | None) -> Face:
    if box is not None:
        middle = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])

        def distance(face: Face) -> float:
            left, top, width, height = face.box
            return float(np.linalg.norm(middle - (left + width / 2, top + height / 2)))

        nearest = min(faces, key=distance)
        if distance(nearest) > max(*nearest.box[2:], *box[2:]) / 2:
            raise InputError(f"There is no face in the box {','.join(f'{number:g}' for number in box)} of the picture.")
        return nearest
    if number is None:
        return faces[0]
    if not 0 <= number < len(faces):
        raise InputError(f"Face {number} was asked for, the picture has {len(faces)}, counted from 0 by size.")
    return faces[number]


def _faces_of_face_alignment(picture: Image, tracker: FaceTracker) -> list[Face]:
    """A last look with the detector of face-alignment, where the extra [fan] is installed."""
    try:
        from face_alignment.detection.sfd import FaceDetector  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return []
    from kdtalker.face.region import region_of_box

    try:
        boxes = FaceDetector("cpu").detect_from_image(picture)
    except OSError as error:  # its weights are downloaded on first use
        raise InputError(
            f"No face was found in the picture, and the weights of face-alignment could not be had: {error}."
        ) from None
    regions = [region_of_box(*(float(value) for value in box[:4])) for box in boxes]
    found = [face for region in regions if (face := tracker.find_in(picture, region)) is not None]
    return sorted(found, key=lambda face: -face.box[2] * face.box[3])
