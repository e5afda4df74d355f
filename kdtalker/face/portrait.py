"""Crop the square around a face, which the renderers draw, and paste drawn squares back into the picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.core.options import LONGEST_SIDE_PX
from kdtalker.face.tracker import Face, FaceTracker

SQUARE_SIDE = 2.3  # side of the square crop, in longer sides of the face's bounding box
SQUARE_RISE = 0.125  # shift of the square above the centre of the face, as a share of the square's side
MIN_EYE_DISTANCE_PX = 24  # between the centres of the eyes; smaller faces are refused
CROP_SIDE_PX = 512  # side of the output where the square crop alone is shown
MAX_ASPECT_RATIO = 20  # longer to shorter side of a picture; narrower strips are refused

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """Hold a picture (H, W, 3) RGB and left, top and side in px of the square crop around a face, which may extend
    beyond the picture's border."""

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
        max_side: int = LONGEST_SIDE_PX,
    ) -> Portrait:
        """Find the face in an (H, W, 3) picture: the largest, number `face` by size from 0, or the one nearest to
        `box` (left, top, width, height in px of the picture given). Pictures with a side longer than max_side px are
        scaled down to that, which is logged; with `crop` the square alone, resampled to 512 px, becomes the picture.

        Raises InputError where the picture is narrower than 1:20, there is no face or not the one asked for, or its
        eyes are less than 24 px apart in the resulting picture.
        """
        shown, chosen, scale = find_face(picture, tracker, face=face, box=box, crop=crop, max_side=max_side)
        square = face_square(chosen, scale)
        return _crop_square(shown, *square) if crop else Portrait(shown, *square)

    @property
    def face(self) -> Image:
        """Crop the square (side, side, 3), with replicated border pixels outside the picture."""
        rows, columns = (
            np.clip(np.arange(start, start + self.side), 0, length - 1)
            for start, length in zip((self.top, self.left), self.picture.shape[:2], strict=True)
        )
        return self.picture[rows[:, None], columns[None]]

    def on(self, picture: Image) -> Portrait:
        """Return the same square of another picture (H, W, 3)."""
        return replace(self, picture=picture)

    def paste(self, face: Image) -> Image:
        """Paste `face` (side, side, 3) over the square in a copy of the picture; one that covers it is returned."""
        if (self.left, self.top) == (0, 0) and face.shape == self.picture.shape:
            return face
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
    max_side: int,
) -> tuple[Image, Face, float]:
    """Find the face that `Portrait.find` describes, in the picture scaled down to max_side px.

    Returns the picture to show (scaled down, or with `crop` the original), the face in px of the scaled picture, and
    the factor from px of the scaled picture to px of the one to show. Raises InputError as `Portrait.find`.
    """
    small, shrink = scale_down(picture, max_side)
    if box is not None:
        box = (box[0] * shrink, box[1] * shrink, box[2] * shrink, box[3] * shrink)
    is_asked_for = face is not None or box is not None
    chosen = _choose(_all_faces(small, tracker, everywhere=is_asked_for), face, box)
    scale = 1 / shrink if crop else 1.0
    _check_eyes(chosen.eye_distance_px * scale, max_side)
    if crop:
        return picture, chosen, scale
    if shrink < 1:
        sizes = *picture.shape[1::-1], *small.shape[1::-1]
        _log.warning("The portrait of %d x %d px was scaled down to %d x %d px; --max-side sets the limit.", *sizes)
    return small, chosen, scale


def face_square(face: Face, scale: float = 1.0) -> tuple[int, int, int]:
    """Compute left, top and side in px of the square crop around a face, in a picture scaled by `scale`."""
    left, top, width, height = face.box
    side = SQUARE_SIDE * max(width, height) * scale
    middle_x, middle_y = (left + width / 2) * scale, (top + height / 2) * scale - SQUARE_RISE * side
    return round(middle_x - side / 2), round(middle_y - side / 2), round(side)


def find_squares(picture: Image, tracker: FaceTracker) -> list[tuple[int, int, int]]:
    """Find the square crops (left, top, side in px) of all faces of a picture (H, W, 3), by falling size.

    Raises InputError where there is no face."""
    small, shrink = scale_down(picture, LONGEST_SIDE_PX)
    return [face_square(face, 1 / shrink) for face in _all_faces(small, tracker, everywhere=True)]


def check_shape(picture: Image, name: str) -> None:
    """Check that the sides of a picture (H, W, 3) are within 1:20. Raises InputError, which calls it `name`."""
    height, width = picture.shape[:2]
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise InputError(
            f"The {name} has {width} x {height} px, wanted one side at most {MAX_ASPECT_RATIO} times as long as the "
            "other; cut it."
        )


def _crop_square(picture: Image, left: int, top: int, side: int) -> Portrait:
    """Crop the square, moved and shrunk to fit inside the picture, and resample it to 512 px."""
    side = min(side, *picture.shape[:2])
    top, left = (
        min(max(start, 0), length - side) for start, length in zip((top, left), picture.shape[:2], strict=True)
    )
    interpolation = cv2.INTER_AREA if side > CROP_SIDE_PX else cv2.INTER_CUBIC
    square = cv2.resize(
        Portrait(picture, left, top, side).face, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=interpolation
    )
    return Portrait(np.asarray(square, np.uint8), 0, 0, CROP_SIDE_PX)


def scale_down(picture: Image, max_side: int) -> tuple[Image, float]:
    """Scale a picture down to sides of at most max_side px; returns it with the factor, 1 where it fits.

    Raises InputError as `check_shape`."""
    check_shape(picture, "portrait")
    shrink = min(1.0, max_side / max(picture.shape[:2]))
    if shrink == 1:
        return picture, shrink
    height, width = (round(length * shrink) for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8), shrink


def _check_eyes(distance_px: float, max_side: int) -> None:
    if distance_px < MIN_EYE_DISTANCE_PX:
        raise InputError(
            f"The face is too small: its eyes are {distance_px:.0f} px apart in a picture of {max_side} px or "
            f"less, wanted at least {MIN_EYE_DISTANCE_PX}; give a larger picture or cut it closer to the face."
        )


def _all_faces(picture: Image, tracker: FaceTracker, *, everywhere: bool) -> list[Face]:
    faces = tracker.find(picture, everywhere=everywhere) or _faces_of_face_alignment(picture, tracker)
    if not faces:
        raise InputError(
            "No face was found in the picture, wanted one that looks roughly into the camera; choose another picture."
        )
    return faces


def _choose(faces: list[Face], number: int | None, box: tuple[float, float, float, float] | None) -> Face:
    if box is not None:
        middle = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])

        def distance(face: Face) -> float:
            left, top, width, height = face.box
            return float(np.linalg.norm(middle - (left + width / 2, top + height / 2)))

        nearest = min(faces, key=distance)
        if distance(nearest) > max(*nearest.box[2:], *box[2:]) / 2:
            numbers = ",".join(f"{length:g}" for length in box)
            raise InputError(f"There is no face in the box {numbers} of the picture; choose another box.")
        return nearest
    if number is None:
        return faces[0]
    if not 0 <= number < len(faces):
        raise InputError(f"Face {number} was asked for, the picture has {len(faces)}; choose one, by size from 0.")
    return faces[number]


def _faces_of_face_alignment(picture: Image, tracker: FaceTracker) -> list[Face]:
    """Detect faces by face-alignment's S3FD, the fallback where the extra [fan] is installed."""
    try:
        from face_alignment.detection.sfd import FaceDetector  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return []
    from kdtalker.face.region import region_of_box

    try:
        boxes = FaceDetector("cpu").detect_from_image(picture)
    except OSError as error:  # its weights are downloaded on first use
        raise InputError(
            f"No face was found in the picture, and the weights of face-alignment could not be downloaded ({error}); "
            "choose a picture in which the face is larger."
        ) from None
    regions = [region_of_box(*(float(value) for value in box[:4])) for box in boxes]
    found = [face for region in regions if (face := tracker.find_in(picture, region)) is not None]
    return sorted(found, key=lambda face: -face.box[2] * face.box[3])
