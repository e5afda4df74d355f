"""Compute close-up metrics of a video beside the real one: texture, colour and flicker inside the open mouth, and
fidelity around it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.face.landmarks import MOUTH_CORNERS, mouth_opening
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP
from train.harness.figures import Metrics

BOX_REACH = 0.9  # half the side of the box around the mouth, in mouth widths
OPEN_SHARE = 0.5  # of the clip's widest opening (95th percentile), from which on a mouth counts as open
SIDE_PX = 160  # side of the stabilised crops between which flicker is measured


@dataclass(frozen=True)
class CloseUp:
    """Hold the parts of one frame: box (h, w, 3) around the mouth, inside (h, w) the mask of the inner lips, crop
    (SIDE_PX, SIDE_PX, 3) stabilised by the mouth corners, and hole (SIDE_PX, SIDE_PX), the mask in it."""

    box: Image
    inside: Array
    crop: Image
    hole: Array

    @staticmethod
    def of(frame: Image, landmarks: Array, place: Array) -> CloseUp:
        """Cut a frame by its own landmarks (468, 3) px; the box lies at the mouth of `place`, the real landmarks."""
        low, high = mouth_box(place, frame.shape)
        inner = [*INNER_UPPER_LIP, *INNER_LOWER_LIP[-2:0:-1]]
        mask = _polygon(frame.shape[:2], landmarks[inner, :2])
        left, right = landmarks[list(MOUTH_CORNERS), :2]
        scale = SIDE_PX / (2 * BOX_REACH * float(np.linalg.norm(right - left)))
        along = (right - left) / np.linalg.norm(right - left) * scale
        turn = np.array([[along[0], along[1]], [-along[1], along[0]]])
        matrix = np.c_[turn, SIDE_PX / 2 - turn @ (left + right) / 2]
        crop, hole = (cv2.warpAffine(image, matrix, (SIDE_PX, SIDE_PX)) for image in (frame, mask))
        area = np.s_[low[1] : high[1], low[0] : high[0]]
        return CloseUp(frame[area], mask[area], np.asarray(crop, np.uint8), np.asarray(hole, np.float32))


def mouth_box(landmarks: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Compute the corners (2,) px of the box around a mouth, within a picture of `shape`."""
    left, right = landmarks[list(MOUTH_CORNERS), :2]
    middle, reach = (left + right) / 2, BOX_REACH * float(np.linalg.norm(right - left))
    limit = shape[1::-1]
    return np.clip(middle - reach, 0, limit).astype(int), np.clip(middle + reach, 0, limit).astype(int)


def gradient_energy(image: Image, mask: Array) -> float:
    """Compute the mean squared Sobel gradient of the luma of (h, w, 3) under a mask (h, w) 0..1."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    squares = cv2.Sobel(luma, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(luma, cv2.CV_32F, 0, 1) ** 2
    return float((squares * mask).sum() / max(float(mask.sum()), 1e-6))


def mean_colour(image: Image, mask: Array) -> Array:
    """Average the colour (3,) of an image (h, w, 3) under a mask (h, w) 0..1."""
    return np.asarray((image * mask[..., None]).sum((0, 1)) / max(float(mask.sum()), 1e-6), np.float32)


def compensated_difference(before: CloseUp, now: CloseUp) -> float:
    """Compute the mean absolute difference of two neighbouring frames inside the mouth, in levels, after dense motion
    compensation (Farneback 2003)."""
    one, other = (cv2.cvtColor(part.crop, cv2.COLOR_RGB2GRAY) for part in (now, before))
    flow = cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 15, 3, 5, 1.1, 0)  # type: ignore[call-overload]
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    moved = cv2.remap(before.crop, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
    difference = np.abs(moved.astype(np.float32) - now.crop).mean(-1)
    mask = np.minimum(now.hole, before.hole)
    return float((difference * mask).sum() / max(float(mask.sum()), 1e-6))


class CloseUpMeter:
    """Accumulate the close-up metrics of a video beside the real one, frame by frame."""

    def __init__(self, real_track: Array) -> None:
        """Take the landmarks (T, 468, 3) px of the real video, which tell where its mouth is open."""
        opening = mouth_opening(real_track)
        self._track, self._is_open = real_track, opening >= OPEN_SHARE * np.percentile(opening, 95)
        self._rows: dict[str, list[float]] = {}
        self._last: tuple[CloseUp, CloseUp] | None = None

    def add(self, frame: int, real: Image, made: Image, landmarks: Array) -> None:
        """Add frame number `frame` of both videos, (H, W, 3), with the landmarks (468, 3) px of the one made."""
        from skimage.metrics import structural_similarity as ssim

        place = self._track[frame]
        pair = CloseUp.of(real, place, place), CloseUp.of(made, landmarks, place)
        boxes = [part.box for part in pair]
        self._append("mouth", float(((boxes[0].astype(np.float32) - boxes[1]) ** 2).mean()))
        self._append("similarity", float(ssim(*boxes, channel_axis=-1)))  # type: ignore[no-untyped-call]
        oval = _polygon(real.shape[:2], place[list(FACE_OVAL), :2]) > 0
        self._append("face", float(((real[oval].astype(np.float32) - made[oval]) ** 2).mean()))
        if self._is_open[frame]:
            colours = [mean_colour(part.box, part.inside) for part in pair]
            self._append("colour", float(np.abs(colours[0] - colours[1]).mean()))
            for name, part in zip(("real energy", "energy"), pair, strict=True):
                self._append(name, gradient_energy(part.box, part.inside))
            for name, two in zip(("real flicker", "flicker"), zip(self._last or pair, pair, strict=True), strict=True):
                self._append(name, compensated_difference(*two) if self._last else 0.0)
        self._last = pair if self._is_open[frame] else None

    def metrics(self) -> Metrics:
        """Compute the metrics: gradient energy and flicker as ratios to the real video's, colour in levels of 255."""
        mean = {name: float(np.mean(values)) for name, values in self._rows.items()}
        return {
            "gradient energy": mean["energy"] / max(mean["real energy"], 1e-6),
            "flicker": mean["flicker"] / max(mean["real flicker"], 1e-6),
            "colour": mean["colour"],
            "mouth PSNR dB": _psnr(mean["mouth"]),
            "mouth SSIM": mean["similarity"],
            "face PSNR dB": _psnr(mean["face"]),
        }

    def _append(self, name: str, value: float) -> None:
        self._rows.setdefault(name, []).append(value)


def _psnr(error: float) -> float:
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def _polygon(shape: tuple[int, ...], corners: Array) -> Array:
    """Rasterise a polygon with corners (N, 2) px to a mask (h, w) of 0 and 1."""
    mask = np.zeros(shape, np.float32)
    return np.asarray(cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1.0), np.float32)
