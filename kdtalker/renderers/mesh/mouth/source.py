"""Fit the teeth of a source image once, and draw the inside of its mouth in every frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.curves import catmull_rom, soft_polygon
from kdtalker.renderers.mesh.eyes.parts import Crop, opening_weight
from kdtalker.renderers.mesh.mouth.fit import fit_mouth
from kdtalker.renderers.mesh.mouth.frame import (
    CHIN,
    HEIGHT_PX,
    INNER_LIPS,
    WIDTH_PX,
    LipShape,
    MouthFrame,
    frame_aspect,
)
from kdtalker.renderers.mesh.mouth.layers import FrameBox
from kdtalker.renderers.mesh.mouth.networks import InteriorNetwork, MouthCodes, ShadingNetwork
from kdtalker.renderers.mesh.mouth.shading import (
    apply_ratio,
    crop_around,
    crop_mask,
    weigh_ratio,
)
from kdtalker.renderers.mesh.topology import (
    FACE_OVAL,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
)

DRAWN_RAMP = (0.002, 0.012)  # mean displacement of the inner lips, in mouth widths, over which the drawn inside sets in
FULL_CHROMA = 12.0  # mean range of RGB around the mouth, in levels, from which on a picture is in full colour
ANTIALIASED_BELOW = 0.7  # scale from which on the drawn image is smoothed before it is made smaller
SHADED_BY = [*INNER_LIPS, *OUTER_UPPER_LIP, *OUTER_LOWER_LIP, *CHIN]  # vertices whose displacement calls for shading
SHADED_RAMP = (0.004, 0.03)  # their mean displacement, in mouth widths, over which shading sets in
FACE_BLUR_PX = 1.5  # blur of the outline within which skin is shaded, in px of the crop
SAMPLED_PX = 3  # of the drawn image beyond a place that is sampled bicubically
BORDER_PX = 0.8  # blur of the border between the inside and the lips


@dataclass(frozen=True)
class WarpedFrame:
    """Hold a frame before its parts are refined: picture (S, S, 3), vertices (468, 3) px of its mesh, resting (468, 3)
    px, the same with a neutral expression, mouth, its frame, crop, the area whose skin is shaded, and displacement
    (2, SIDE_PX, SIDE_PX) of that skin, as `shading.measure_displacement` computes it."""

    picture: Image
    vertices: Array
    resting: Array
    mouth: MouthFrame
    crop: Crop
    displacement: Array


@dataclass(frozen=True)
class SourceMouth:
    """Hold an encoded mouth: landmarks (468, 3) px and its width_px at rest; aspect of its frame; codes, its teeth and
    what else `InteriorNetwork` draws it by; saturation 0..1, 0 for a grey picture; crop, the area whose skin is
    shaded."""

    landmarks: Array
    width_px: float
    aspect: float
    codes: MouthCodes
    saturation: float
    crop: Crop

    @staticmethod
    def fit(face: Image, landmarks: Array, resting: Array, identity: Array, network: InteriorNetwork) -> SourceMouth:
        """Fit codes to a face crop (S, S, 3) with landmarks (468, 3) px, a resting mesh (468, 3) px and canonical
        vertices (468, 3); the teeth that it shows become part of the textures."""
        aspect = frame_aspect(identity)
        frame = MouthFrame.of(resting, aspect)
        lips = LipShape.of_mesh(frame, landmarks, resting)
        picture = sample_frame(face, frame)
        colour = mean_colours(picture, frame.to_frame(landmarks[:, :2]), lips.mask)
        width_px = float(np.linalg.norm(resting[291, :2] - resting[61, :2]))
        codes = fit_mouth(picture, lips, colour, network)
        chroma = float(np.ptp(picture, axis=-1).mean())
        saturation = min(chroma / FULL_CHROMA, 1.0)
        return SourceMouth(landmarks, width_px, aspect, codes, saturation, crop_around(frame))

    def frame(self, resting: Array) -> MouthFrame:
        """Compute the mouth's frame of a resting mesh (468, 3) px."""
        return MouthFrame.of(resting, self.aspect)

    def blend_weight(self, vertices: Array) -> Array:
        """Compute the weights (T,) 0..1 of the drawn inside for meshes (T, 468, 3) px in the source's own pose."""
        inside = INNER_UPPER_LIP, INNER_LOWER_LIP
        return opening_weight(inside, vertices, self.landmarks, self.width_px, DRAWN_RAMP)

    def shading_weight(self, vertices: Array) -> Array:
        """Compute the weights (T,) 0..1 of the ratio image for meshes (T, 468, 3) px in the source's own pose: 0 where
        mouth and chin stand as in the source."""
        moved = np.linalg.norm(vertices[:, SHADED_BY, :2] - self.landmarks[SHADED_BY, :2], axis=-1).mean(-1)
        return np.asarray(np.interp(moved / (self.width_px + 1e-6), SHADED_RAMP, (0, 1)))

    def shade(self, frame: WarpedFrame, weight: float, network: ShadingNetwork) -> None:
        """Shade the skin of the face around the mouth of a frame, in place, at a weight 0..1."""
        crop = frame.crop
        opening = crop_mask(crop, trace_opening(frame.vertices))
        log_ratio = network.predict(frame.picture, crop, opening, frame.displacement)
        face = crop_mask(crop, frame.vertices[list(FACE_OVAL), :2], FACE_BLUR_PX)
        apply_ratio(frame.picture, crop, weigh_ratio(log_ratio, face, weight, self.saturation))

    def paint(self, warped: WarpedFrame, weight: float, network: InteriorNetwork) -> None:
        """Draw the inside of the mouth into a frame, in place, at a weight 0..1."""
        picture, vertices, resting = warped.picture, warped.vertices, warped.resting
        frame = warped.mouth
        points = trace_opening(vertices)
        low = np.clip(np.floor(points.min(0)) - 3, 0, len(picture)).astype(int)
        high = np.clip(np.ceil(points.max(0)) + 4, 0, len(picture)).astype(int)
        if (high - low < 2).any():
            return
        matrix = frame.matrix.astype(np.float64)
        scale = float(np.linalg.norm(matrix[:, 0]))
        blur = 0.4 / scale if scale < ANTIALIASED_BELOW else 0.0
        box = frame_box(frame, low, high, SAMPLED_PX + round(3 * blur))
        drawn = network.draw(self.codes, LipShape.of_mesh(frame, vertices, resting), self.saturation, box)
        if blur:
            drawn = np.asarray(cv2.GaussianBlur(drawn, (0, 0), blur), np.uint8)
        matrix[:, 2] += matrix[:, :2] @ box[:2]
        matrix[:, 2] -= low
        size = high - low
        inside = cv2.warpAffine(drawn, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_CUBIC,
                                borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        mask = weight * soft_polygon((int(size[1]), int(size[0])), points - low, BORDER_PX)[..., None]
        area = picture[low[1] : high[1], low[0] : high[0]]
        area[:] = np.round(area + mask * (inside.astype(np.float32) - area))


def frame_box(frame: MouthFrame, low: Array, high: Array, margin: int) -> FrameBox:
    """Compute the box of the mouth's frame, at least a px, that a box of the picture with corners low and high (2,) px
    samples, with a margin in px."""
    corners = frame.to_frame(np.array([low, (low[0], high[1]), high, (high[0], low[1])], np.float32))
    left, top = (np.floor(corners.min(0)).astype(int) - margin).tolist()
    right, bottom = (np.ceil(corners.max(0)).astype(int) + margin + 1).tolist()
    left, top = min(max(left, 0), WIDTH_PX - 1), min(max(top, 0), HEIGHT_PX - 1)
    return left, top, min(max(right, left + 1), WIDTH_PX), min(max(bottom, top + 1), HEIGHT_PX)


def sample_frame(picture: Image, frame: MouthFrame) -> Image:
    """Resample a picture (S, S, 3) to the mouth's frame (HEIGHT_PX, WIDTH_PX, 3), by area averaging where it is
    downscaled."""
    times = max(1, round(float(np.linalg.norm(frame.matrix[:, 0]))))
    matrix = frame.matrix.astype(np.float64)
    matrix[:, :2] /= times
    matrix[:, 2] -= matrix[:, :2] @ np.full(2, (times - 1) / 2)
    size = WIDTH_PX * times, HEIGHT_PX * times
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(fine, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)


def mean_colours(picture: Image, points: Array, inside: Array) -> Array:
    """Measure the median colours of skin and lips, (6,) 0..1, in the mouth's frame: points (468, 2) px of the
    landmarks, inside (H, W) the mask of the opening."""
    outer = np.concatenate([points[[61, *OUTER_UPPER_LIP, 291]], points[list(OUTER_LOWER_LIP[::-1])]])
    mouth = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    cv2.fillPoly(mouth, [np.round(outer).astype(np.int32)], 1)
    lips = (mouth > 0) & (cv2.dilate((inside > 0.08).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0)
    around = cv2.dilate(mouth, np.ones((9, 9), np.uint8)) == 0
    skin = np.median(picture[around], axis=0)
    colour = np.median(picture[lips], axis=0) if lips.any() else skin
    return np.asarray(np.concatenate([skin, colour]) / 255, np.float32)


def trace_opening(vertices: Array) -> Array:
    """Trace the contour (N, 2) px of the opening between the lips of a mesh (468, 3) px."""
    upper, lower = (catmull_rom(vertices[list(curve), :2]) for curve in (INNER_UPPER_LIP, INNER_LOWER_LIP))
    return np.concatenate([upper, lower[-2:0:-1]])
