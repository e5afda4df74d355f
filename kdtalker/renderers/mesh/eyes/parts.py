"""Crop the eyes in the head's frame, so that their corners stand still in the crop however lids move, and blend what a
network predicts for them back into the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.face.landmarks import EYE_CONTOURS
from kdtalker.renderers.mesh.curves import catmull_rom, soft_polygon

HEIGHT_RANGE = 0.6  # part widths above and below the upper curve that the height map of a view covers
TAPER = 0.09  # width of the taper along a crop's border, as a share of its side
# Mean gaps of the contours in part widths, below which a part is closed and above which it is open.
GAP_RAMP = (0.03, 0.055)
LID_GAP_RAMP = (0.03, 0.06)  # the same for lids, which `Lids.close` draws shut before they are

Curve = tuple[int, ...]  # landmarks from one end of the part to the other

# (warped, source) views (B, side_px, side_px, 6) to layers (B, side_px, side_px, 5): the change of RGB in levels, the
# share of source pixels 0..1 and the alpha 0..1.
Paint = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Array]


@dataclass(frozen=True)
class Part:
    """Describe a part of the face by landmarks; lengths in part widths, the distance of its ends.

    side_px: side of the crop, which extends `reach` to all sides of a centre `drop` below that of the ends;
    inside: upper and lower contour of the opening;
    ramp: mean displacement of the opening's contour at which blending starts and is complete;
    margin: how far beyond the opening, as it is and at rest, pixels may change (a frame of glasses may be there)."""

    side_px: int
    ends: tuple[int, int]
    reach: float
    drop: float
    inside: tuple[Curve, Curve]
    ramp: tuple[float, float]
    margin: float


def _eye(contour: Curve) -> Part:
    outer, inner = contour[0], contour[8]
    return Part(
        side_px=64,
        ends=(outer, inner),
        reach=0.8,
        drop=-0.05,
        inside=((outer, *contour[9:], inner), contour[:9]),
        ramp=(0.035, 0.06),
        margin=0.2,
    )


EYES = tuple(_eye(contour) for contour in EYE_CONTOURS)  # the person's right eye, then the left


@dataclass(frozen=True)
class Crop:
    """Hold the affine matrix (2, 3) from px of a square crop to px of the picture, side_px of the crop, and scale: px
    of the picture per px of the crop."""

    matrix: Array
    side_px: int
    scale: float

    @staticmethod
    def of(part: Part, resting: Array) -> Crop:
        """Compute the crop of a part from the resting mesh (468, 3) px. The part's first end is on the crop's left."""
        first, second = resting[part.ends[0], :2], resting[part.ends[1], :2]
        width = float(np.linalg.norm(second - first)) + 1e-6
        across = (second - first) / width
        down = np.array([-across[1], across[0]])
        down *= np.sign(down @ (resting[152, :2] - resting[10, :2])) or 1  # towards the chin: the left eye is mirrored
        scale = 2 * part.reach * width / part.side_px
        linear = scale * np.stack([across, down], 1)
        corner = (first + second) / 2 + part.drop * width * down - linear @ np.full(2, (part.side_px - 1) / 2)
        return Crop(np.c_[linear, corner].astype(np.float32), part.side_px, scale)

    def translate(self, by: Array) -> Crop:
        """Translate the crop by (2,) px of the picture."""
        return Crop(np.c_[self.matrix[:, :2], self.matrix[:, 2] + by].astype(np.float32), self.side_px, self.scale)

    def sample(self, picture: Image) -> Image:
        """Resample a picture (S, S, ...) to (side_px, side_px, ...), by area averaging where it is downscaled."""
        times = max(1, round(self.scale))
        matrix = self.matrix.copy()
        matrix[:, :2] /= times
        matrix[:, 2] -= matrix[:, :2] @ np.full(2, (times - 1) / 2)
        flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        fine = cv2.warpAffine(picture, matrix, (self.side_px * times,) * 2, flags=flags, borderMode=border)
        return np.asarray(cv2.resize(fine, (self.side_px,) * 2, interpolation=cv2.INTER_AREA), np.uint8)

    def to_crop(self, points: Array) -> Array:
        """Map points (N, 2) from px of the picture to px of the crop."""
        mapped: Array = (points - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T
        return mapped

    def bounds(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Compute the corners (2,) px of the box around the crop in a picture of (side, side) px."""
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * (self.side_px - 1)
        corners = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        low, high = np.floor(corners.min(0)), np.ceil(corners.max(0)) + 1
        return np.clip(low, 0, side).astype(np.int64), np.clip(high, 0, side).astype(np.int64)

    def blend(self, layers: Array, weight: float, picture: Image, source: Image, source_crop: Crop) -> None:
        """Blend layers (side_px, side_px, 5) of a `Paint`, their alpha times weight, into a picture (S, S, 3) in place.
        Source pixels are sampled from the source image (S, S, 3) through source_crop, at full resolution."""
        low, high = self.bounds(len(picture))
        if (high <= low).any():
            return
        area = picture[low[1] : high[1], low[0] : high[0]]
        matrix = self.matrix.copy()
        matrix[:, 2] -= low
        size = (area.shape[1], area.shape[0])
        change = cv2.warpAffine(layers[..., :3], matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        shares = np.stack([layers[..., 3], weight * layers[..., 4] * border_taper(self.side_px)], -1)
        source_share, alpha = cv2.split(cv2.warpAffine(shares, matrix, size, flags=cv2.INTER_LINEAR))
        to_source = _compose(source_crop.matrix, np.asarray(cv2.invertAffineTransform(matrix), np.float32))
        pixels = cv2.warpAffine(source, to_source, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        change += source_share[..., None] * (pixels.astype(np.float32) - area - change)
        area[:] = np.clip(area + alpha[..., None] * change + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class SourcePart:
    """Hold a part of the source image: picture (S, S, 3); landmarks (468, 3) px; resting (468, 3) px, the mesh with a
    neutral expression; view (side_px, side_px, 6), the network's input; person (side_px, side_px) 0..1, the mask that
    bounds blending."""

    part: Part
    picture: Image
    landmarks: Array
    resting: Array
    view: NDArray[np.uint8]
    person: Array

    @staticmethod
    def of(part: Part, picture: Image, person: Array, landmarks: Array, resting: Array) -> SourcePart:
        """Crop a part from a source image (S, S, 3) with its person mask (S, S) 0..1."""
        mask = np.float32(1 / 255) * Crop.of(part, resting).sample(np.round(255 * person).astype(np.uint8))
        return SourcePart(part, picture, landmarks, resting, make_view(part, picture, landmarks, resting), mask)

    @property
    def is_grey(self) -> bool:
        """Test whether the source image is greyscale."""
        colours = self.view[..., :3]
        return not np.ptp(colours, axis=-1).any()

    def repaint(self, picture: Image, warped: NDArray[np.uint8], resting: Array, weight: float, paint: Paint) -> None:
        """Blend the network's prediction into a warped picture (S, S, 3) in place, with a weight 0..1; warped is the
        picture's view of the part, resting its mesh (468, 3) px with a neutral expression."""
        layers = paint(warped[None], self.view[None])[0]
        if self.is_grey:
            layers[..., :3] = layers[..., :3].mean(-1, keepdims=True)
        layers[..., 4] *= self.person
        layers[..., 4] *= _dilate_masks(warped, self.part.margin / (2 * self.part.reach))
        Crop.of(self.part, resting).blend(layers, weight, picture, self.picture, Crop.of(self.part, self.resting))

    def blend_weight(self, vertices: Array) -> Array:
        """Compute the weights (T,) 0..1 of the network's prediction for meshes (T, 468, 3) px in the source's own
        pose."""
        width_px = float(np.linalg.norm(np.subtract(*self.resting[list(self.part.ends), :2])))
        return opening_weight(
            self.part.inside, vertices, self.landmarks, width_px, self.part.ramp, gap_ramp=LID_GAP_RAMP
        )


def opening_weight(
    inside: tuple[Curve, Curve],
    vertices: Array,
    source: Array,
    width_px: float,
    ramp: tuple[float, float],
    *,
    gap_ramp: tuple[float, float] = GAP_RAMP,
) -> Array:
    """Compute the weights (T,) 0..1 of what is drawn in an opening: 0 while its contour, upper and lower curve, of
    meshes (T, 468, 3) px matches the source's or is closed by `gap_ramp`; 1 once it is displaced by `ramp`, in widths
    of the part."""
    upper, lower = map(list, inside)
    contour = [*{*upper, *lower}]
    moved = np.linalg.norm(vertices[:, contour, :2] - source[contour, :2], axis=-1).mean(-1)
    along = source[upper[-1], :2] - source[upper[0], :2]  # curves may slide along each other: that opens nothing
    down = np.array([-along[1], along[0]]) * np.sign(along[0]) / (np.linalg.norm(along) + 1e-6)
    gap = np.maximum((vertices[:, lower] - vertices[:, upper])[..., :2] @ down, 0).mean(-1)
    begun, opened = (
        np.interp(value / (width_px + 1e-6), bounds, (0, 1)) for value, bounds in ((moved, ramp), (gap, gap_ramp))
    )
    return np.asarray(begun * opened)


def make_view(part: Part, picture: Image, vertices: Array, resting: Array) -> NDArray[np.uint8]:
    """Compute the network's view (side_px, side_px, 6) of a part: RGB, masks of the opening as it is and at rest,
    height over its upper curve. vertices (468, 3) px is the mesh of the picture, resting the same with a neutral
    expression."""
    crop, side = Crop.of(part, resting), part.side_px

    def mask(mesh: Array) -> Array:
        upper, lower = (catmull_rom(crop.to_crop(mesh[list(curve), :2])) for curve in part.inside)
        return soft_polygon((side, side), np.concatenate([upper, lower[-2:0:-1]]), 0.6)

    line = crop.to_crop(vertices[list(part.inside[0]), :2])
    pixels = np.arange(side, dtype=np.float32)
    below = (pixels[:, None] - np.interp(pixels, line[:, 0], line[:, 1])[None]) * 2 * part.reach / side
    height = 0.5 + 0.5 * np.clip(below / HEIGHT_RANGE, -1, 1)
    maps = np.stack([mask(vertices), mask(resting), height], -1)
    return np.concatenate([crop.sample(picture), np.round(255 * maps).astype(np.uint8)], -1)


@cache
def border_taper(side_px: int) -> Array:
    """Compute the blending weight (side_px, side_px) 0..1 that fades out along a crop's border."""
    pixels = np.arange(side_px)
    along = smoothstep(np.minimum(pixels, pixels[::-1]) / (TAPER * side_px))
    return np.minimum(along[:, None], along[None])


def _compose(second: Array, first: Array) -> Array:
    """Compose two affine matrices (2, 3): `first` is applied first."""
    return np.asarray(second @ np.vstack([first, [0, 0, 1]]), np.float32)


def _dilate_masks(view: NDArray[np.uint8], margin: float) -> Array:
    """Dilate the union of a view's masks to (side_px, side_px) 0..1, 0 beyond `margin`, a share of the side."""
    px = margin * len(view)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.75 * px) + 1,) * 2)
    wide = cv2.dilate(view[..., 3:5].max(-1), kernel).astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(wide, (0, 0), px / 4), np.float32)
