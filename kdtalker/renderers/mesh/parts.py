"""The parts of a face that a network repaints, mouth and eyes: cut out where the skull holds them, so that teeth and
eye corners stand still in the crop however lips and lids move, and put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.face.landmarks import EYE_CONTOURS
from kdtalker.renderers.mesh.curves import soft_polygon, spline
from kdtalker.renderers.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, OUTER_LOWER_LIP, OUTER_UPPER_LIP

LINE_RANGE = 0.6  # part widths above and below its line that a view's third map tells apart
RIM = 0.09  # of the crop's side, over which the painting fades out
OPENS = (0.03, 0.055)  # part widths between upper and lower curve, of shut lips and of such that have something between
Curve = tuple[int, ...]  # landmarks from one end of the part to the other
# Views (B, side_px, side_px, 6) of warped and photographed parts to (B, side_px, side_px, 5): the change of RGB in
# levels, how much of the photograph is taken instead, and how much of it all counts, 0..1.
Paint = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Array]


@dataclass(frozen=True)
class Part:
    """One part, in landmarks; all lengths in its width, the distance of its ends.

    side_px of the crop, which reaches `reach` to all sides of a middle that lies `drop` below that of the ends.
    `inside` is the opening between an upper and a lower curve, `around` a second such area, of the resting mesh where
    `around_rests`; `line`, a curve or the mean of two, likewise. The painting appears where the opening's rim has moved
    by so much (from, to), at most `margin` beyond both areas where one is given: there may be the
    frame of glasses."""

    side_px: int
    ends: tuple[int, int]
    reach: float
    drop: float
    inside: tuple[Curve, Curve]
    around: tuple[Curve, Curve]
    around_rests: bool
    line: tuple[Curve, ...]
    line_rests: bool
    appears: tuple[float, float]
    margin: float | None = None


MOUTH = Part(
    side_px=112,
    ends=(78, 308),
    reach=0.8,
    drop=0.18,
    inside=(INNER_UPPER_LIP, INNER_LOWER_LIP),
    around=((61, *OUTER_UPPER_LIP, 291), (61, *OUTER_LOWER_LIP, 291)),
    around_rests=False,
    line=(INNER_UPPER_LIP, INNER_LOWER_LIP),  # at rest they meet in it
    line_rests=True,
    appears=(0.002, 0.012),
)


def _eye(contour: Curve) -> Part:
    outer, inner = contour[0], contour[8]
    lids = ((outer, *contour[9:], inner), contour[:9])
    return Part(
        side_px=64,
        ends=(outer, inner),
        reach=0.8,
        drop=-0.05,
        inside=lids,
        around=lids,
        around_rests=True,
        line=lids[:1],
        line_rests=False,
        appears=(0.035, 0.06),
        margin=0.2,
    )


EYES = tuple(_eye(contour) for contour in EYE_CONTOURS)


@dataclass(frozen=True)
class Crop:
    """Where a part is cut out: `place` (2, 3), px of the crop (x, y, 1) to px of the picture; side_px; finer, the
    picture's pixels for one of the crop."""

    place: Array
    side_px: int
    finer: float

    @staticmethod
    def of(part: Part, resting: Array) -> Crop:
        """In a picture with a head (468, 3) px whose face is at rest. The first end is on the left of every crop."""
        first, second = resting[part.ends[0], :2], resting[part.ends[1], :2]
        width = float(np.linalg.norm(second - first)) + 1e-6
        across = (second - first) / width
        down = np.array([-across[1], across[0]])
        down *= np.sign(down @ (resting[152, :2] - resting[10, :2])) or 1  # towards the chin: the left eye is mirrored
        finer = 2 * part.reach * width / part.side_px
        turn = finer * np.stack([across, down], 1)
        corner = (first + second) / 2 + part.drop * width * down - turn @ np.full(2, (part.side_px - 1) / 2)
        return Crop(np.c_[turn, corner].astype(np.float32), part.side_px, finer)

    def moved(self, by: Array) -> Crop:
        """The same further on by (2,) px of the picture."""
        return Crop(np.c_[self.place[:, :2], self.place[:, 2] + by].astype(np.float32), self.side_px, self.finer)

    def cut(self, picture: Image) -> Image:
        """(side_px, side_px, ...) of a picture (S, S, ...), averaged where that is finer."""
        times = max(1, round(self.finer))
        place = self.place.copy()
        place[:, :2] /= times
        place[:, 2] -= place[:, :2] @ np.full(2, (times - 1) / 2)
        way, edge = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        fine = cv2.warpAffine(picture, place, (self.side_px * times,) * 2, flags=way, borderMode=edge)
        return np.asarray(cv2.resize(fine, (self.side_px,) * 2, interpolation=cv2.INTER_AREA), np.uint8)

    def inward(self, points: Array) -> Array:
        """(N, 2) px of the picture to px of the crop."""
        inward: Array = (points - self.place[:, 2]) @ np.linalg.inv(self.place[:, :2]).T
        return inward

    def put(self, painted: Array, appears: float, picture: Image, photograph: Image, crop: Crop) -> None:
        """Blend painted (side_px, side_px, 5), as Paint gives it, into picture (S, S, 3); from the photograph (S, S, 3)
        comes what its own crop shows in the same place, pixel for pixel."""
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * (self.side_px - 1)
        corners = corners @ self.place[:, :2].T + self.place[:, 2]
        low = np.clip(np.floor(corners.min(0)), 0, len(picture)).astype(int)
        high = np.clip(np.ceil(corners.max(0)) + 1, 0, len(picture)).astype(int)
        if (high <= low).any():
            return
        area = picture[low[1] : high[1], low[0] : high[0]]
        place = self.place.copy()
        place[:, 2] -= low
        size = (area.shape[1], area.shape[0])
        change = cv2.warpAffine(painted[..., :3], place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        shares = np.stack([painted[..., 3], appears * painted[..., 4] * rim(self.side_px)], -1)
        taken, counts = cv2.split(cv2.warpAffine(shares, place, size, flags=cv2.INTER_LINEAR))
        way = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        own = cv2.warpAffine(
            photograph, _after(crop.place, np.asarray(cv2.invertAffineTransform(place), np.float32)), size, flags=way
        )
        change += taken[..., None] * (own.astype(np.float32) - area - change)
        area[:] = np.clip(area + counts[..., None] * change + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class PhotographedPart:
    """A part as the photograph shows it: landmarks (468, 3) px; resting (468, 3) px the same head with its face at
    rest; view (side_px, side_px, 6) what the painter sees of picture (S, S, 3); person (side_px, side_px) 0..1 where it
    may paint: a face from the side has a mouth that ends at its outline."""

    part: Part
    picture: Image
    landmarks: Array
    resting: Array
    view: NDArray[np.uint8]
    person: Array

    @staticmethod
    def of(part: Part, picture: Image, person: Array, landmarks: Array, resting: Array) -> PhotographedPart:
        """From picture (S, S, 3) and its person (S, S) 0..1."""
        seen = np.float32(1 / 255) * Crop.of(part, resting).cut(np.round(255 * person).astype(np.uint8))
        return PhotographedPart(part, picture, landmarks, resting, view(part, picture, landmarks, resting), seen)

    @property
    def is_grey(self) -> bool:
        colours = self.view[..., :3]
        return not np.ptp(colours, axis=-1).any()

    def repaint(self, picture: Image, warped: NDArray[np.uint8], resting: Array, appears: float, paint: Paint) -> None:
        """Paint the part, so much of it, into picture (S, S, 3), of which this is the view and whose resting mesh
        (468, 3) px this is."""
        painted = paint(warped[None], self.view[None])[0]
        if self.is_grey:
            painted[..., :3] = painted[..., :3].mean(-1, keepdims=True)
        painted[..., 4] *= self.person
        if self.part.margin:
            painted[..., 4] *= _near(warped, self.part.margin / (2 * self.part.reach))
        Crop.of(self.part, resting).put(painted, appears, picture, self.picture, Crop.of(self.part, self.resting))

    def appears(self, vertices: Array) -> float:
        """How much of a painting shows: 0 where the opening's rim stands in the head as it is photographed, or where it
        is shut in both, 1 where it has moved: vertices (468, 3) px are the moved face on a head that is where the
        photograph has it."""
        (first, second), (upper, lower) = self.part.ends, self.part.inside
        width = float(np.linalg.norm(self.resting[second, :2] - self.resting[first, :2])) + 1e-6

        def apart(points: list[int], mesh: Array, others: list[int], other: Array) -> float:
            return float(np.linalg.norm(mesh[points, :2] - other[others, :2], axis=1).mean()) / width

        both = list({*upper, *lower})
        moved = apart(both, vertices, both, self.landmarks)
        open_by = max(apart(list(upper), mesh, list(lower), mesh) for mesh in (vertices, self.landmarks))
        return _risen(moved, self.part.appears) * _risen(open_by, OPENS)


def _risen(value: float, rise: tuple[float, float]) -> float:
    start, end = rise
    return float(np.clip((value - start) / (end - start), 0, 1))


def view(part: Part, picture: Image, vertices: Array, resting: Array) -> NDArray[np.uint8]:
    """(side_px, side_px, 6): the picture around a part; the areas inside and around it; how far above or below its line
    a pixel is. vertices (468, 3) px as they are drawn, resting (468, 3) px the same head with its face at rest."""
    crop, side = Crop.of(part, resting), part.side_px

    def area(curves: tuple[Curve, Curve], mesh: Array) -> Array:
        upper, lower = (spline(crop.inward(mesh[list(curve), :2])) for curve in curves)
        return soft_polygon((side, side), np.concatenate([upper, lower[-2:0:-1]]), 0.6)

    line = np.mean([(resting if part.line_rests else vertices)[list(curve), :2] for curve in part.line], axis=0)
    line = crop.inward(line)
    places = np.arange(side, dtype=np.float32)
    below = (places[:, None] - np.interp(places, line[:, 0], line[:, 1])[None]) * 2 * part.reach / side
    height = 0.5 + 0.5 * np.clip(below / LINE_RANGE, -1, 1)
    maps = np.stack(
        [area(part.inside, vertices), area(part.around, resting if part.around_rests else vertices), height], -1
    )
    return np.concatenate([crop.cut(picture), np.round(255 * maps).astype(np.uint8)], -1)


def _after(second: Array, first: Array) -> Array:
    """The affine way (2, 3) of going `first` and then `second`."""
    return np.asarray(second @ np.vstack([first, [0, 0, 1]]), np.float32)


def _near(view: NDArray[np.uint8], margin: float) -> Array:
    """(side_px, side_px) 0..1: 1 in both areas of a view and near them, 0 from `margin`, a share of the side, on."""
    px = margin * len(view)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.75 * px) + 1,) * 2)
    wide = cv2.dilate(view[..., 3:5].max(-1), brush).astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(wide, (0, 0), px / 4), np.float32)


def rim(side_px: int) -> Array:
    """(side_px, side_px) 0..1: 1 but for a crop's border."""
    places = np.arange(side_px)
    along = smoothstep(np.minimum(places, places[::-1]) / (RIM * side_px))
    return np.minimum(along[:, None], along[None])
