"""Close a mouth that was photographed open: the gap that the keypoints leave, teeth at the lips' edges, the line where
lips meet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.renderers.mesh.curves import catmull_rom
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.renderers.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, OUTER_LOWER_LIP, OUTER_UPPER_LIP

# Mean gap of the source's lips, in canonical units, from which on they count as parted, and as open.
PARTED_RANGE = (0.01, 0.04)
LOWER_SHARE = 0.8  # of what is left open, closed by the lower lip
# Distance from the inner lips, in canonical units, up to which lips follow as a whole, and over which skin and chin
# follow them less and less (the deviation of a Gaussian).
LIP_HEIGHT, FALLOFF = 0.2, 0.35
# Profiles across the lips, in lip heights from the inner to the outer edge, in which the red's inner edge is found.
PROFILE = np.linspace(-0.5, 0.9, 29)
EDGE_RANGES = ((-0.25, 0.3), (-0.25, 0.1))  # upper and lower lip: the light on a wet lower lip is no edge
INSET_MARGINS = ((0.15,), (0.06,))  # in lip heights, kept from the edge that was found
LEAST_BELOW = 1.35  # in lip heights from the inner edge, of the first landmarks below the lower lip
LINE_SIGMA, LINE_DARKNESS = 0.016, 0.3  # of the line between shut lips, in mouth widths, and the light it takes
LINE_COLOUR = np.array([0.75, 1, 1], np.float32)  # of that light: the line is reddish
SHUT_GAP = 0.04  # mean gap in mouth widths at which the line has faded

_UPPER, _LOWER = INNER_UPPER_LIP[1:-1], INNER_LOWER_LIP[1:-1]
# Rings of landmarks on the lips between the inner and the outer ones, upper lip first.
_RINGS = (
    (183, 42, 41, 38, 12, 268, 271, 272, 407, 96, 89, 179, 86, 15, 316, 403, 319, 325),
    (184, 74, 73, 72, 11, 302, 303, 304, 408, 77, 90, 180, 85, 16, 315, 404, 320, 307),
)
_BELOW = (43, 106, 182, 83, 18, 313, 406, 335, 273)


@dataclass(frozen=True)
class Lips:
    """Hold the closing of a source image's lips: jacobian (63,): expression to the mean gap of the lips; gap: that of
    the source; residual (468, 3) in canonical units: what closes the gap that a neutral expression leaves; inset
    (468, 2) px: what moves the landmarks of the lips so that the inner ones lie where the red begins in the picture."""

    jacobian: Array
    gap: float
    residual: Array
    inset: Array

    @staticmethod
    def of(picture: Image, landmarks: Array, model: FaceModel, identity: Array, offset: Array) -> Lips:
        """Measure a picture (S, S, 3) with landmarks (468, 3) px, the identity (468, 3) with closed mouth, and the
        offset (21, 3) that opens it."""
        jacobian = model.lip_gap_jacobian().mean(0)
        gap = float(jacobian @ offset.ravel())
        parted = float(smoothstep((gap - PARTED_RANGE[0]) / (PARTED_RANGE[1] - PARTED_RANGE[0])))
        residual = parted * _residual(identity)
        return Lips(jacobian, gap, residual, parted * _find_insets(picture, landmarks[:, :2]))

    def closing(self, motion: Motion) -> Array:
        """Measure how far the lips have closed in each frame, (T,): 0 as open as in the source or more, 1 closed."""
        if not self.inset.any():
            return np.zeros(len(motion), np.float32)
        in_head = motion.expression @ rotation_matrix(motion.pose).transpose(0, 2, 1)
        gaps = in_head.reshape(len(motion), -1) @ self.jacobian
        return np.asarray(np.clip(1 - gaps / self.gap, 0, 1), np.float32)

    def draw_line(self, frame: Image, vertices: Array, closing: float) -> None:
        """Darken the line between lips that meet in a frame (S, S, 3) with mesh (468, 3) px, in place."""
        if not closing:
            return
        upper, lower = (vertices[list(curve), :2] for curve in (INNER_UPPER_LIP, INNER_LOWER_LIP))
        width = float(np.linalg.norm(upper[-1] - upper[0])) + 1e-6
        gap = float(np.linalg.norm(upper - lower, axis=1).mean()) / width
        strength = closing * LINE_DARKNESS * float(smoothstep(1 - gap / SHUT_GAP))
        if strength < 0.02:
            return
        curve = catmull_rom(np.asarray((upper + lower) / 2, np.float32))
        sigma = LINE_SIGMA * width
        low = np.clip(np.floor(curve.min(0) - 3 * sigma - 1), 0, len(frame)).astype(int)
        high = np.clip(np.ceil(curve.max(0) + 3 * sigma + 2), 0, len(frame)).astype(int)
        if (high <= low).any():
            return
        area = frame[low[1] : high[1], low[0] : high[0]]
        line = np.zeros(area.shape[:2], np.uint8)
        points = np.round((curve - low) * 16).astype(np.int32)
        cv2.polylines(line, [points.reshape(-1, 1, 2)], False, 255, max(1, round(1.5 * sigma)), cv2.LINE_AA, 4)
        blurred = cv2.GaussianBlur(line.astype(np.float32), (0, 0), sigma)
        dark = strength * blurred / max(float(blurred.max()), 1e-6)
        area[:] = np.round(area * (1 - dark[..., None] * LINE_COLOUR)).astype(np.uint8)


def _residual(identity: Array) -> Array:
    """Compute the displacement (468, 3) that brings the inner lips of an identity (468, 3) together; the skin around
    follows."""
    upper, lower = identity[list(_UPPER)], identity[list(_LOWER)]
    gaps = lower - upper
    gaps[:, 1] = np.maximum(gaps[:, 1], 0)
    ends = identity[[INNER_UPPER_LIP[0], INNER_UPPER_LIP[-1]]]
    line = np.concatenate([ends[:1], (upper + lower) / 2, ends[1:]])
    columns = [line[:, 1], *np.pad(gaps, ((1, 1), (0, 0))).T]
    middle, *gap = (np.interp(identity[:, 0], line[:, 0], values) for values in columns)
    below = identity[:, 1] - middle
    follow = np.exp(-((np.maximum(np.abs(below) - gap[1] / 2 - LIP_HEIGHT, 0) / FALLOFF) ** 2))
    share = np.where(below > 0, -LOWER_SHARE, 1 - LOWER_SHARE)
    residual = (follow * share)[:, None] * np.stack(gap, 1)
    residual[list(_UPPER)] = (1 - LOWER_SHARE) * gaps
    residual[list(_LOWER)] = -LOWER_SHARE * gaps
    return np.asarray(residual, np.float32)


def _find_insets(picture: Image, landmarks: Array) -> Array:
    """Find the displacement (468, 2) px that moves the inner lips' landmarks (468, 2) to the edge of the red in the
    picture, the split of the colour profile across the lip into two classes (Otsu 1979), and those below the
    lower lip, which in wide mouths lie on it, off the red."""
    inner, outer = [*_UPPER, *_LOWER], [*OUTER_UPPER_LIP, *OUTER_LOWER_LIP]
    start = landmarks[inner]
    across = landmarks[outer] - start

    def outward(points: list[int], start: Array, across: Array) -> Array:
        place: Array = ((landmarks[points] - start) * across).sum(1) / np.maximum((across**2).sum(1), 1e-6)
        return place

    places = (start[:, None] + PROFILE[:, None] * across[:, None]).astype(np.float32)
    smooth = cv2.GaussianBlur(picture, (0, 0), 1)
    profiles = cv2.remap(smooth, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lips = zip(np.split(profiles.astype(np.float32), 2), EDGE_RANGES, strict=True)
    found = [[_split(profile, span) for profile in lip] for lip, span in lips]
    edges = np.stack([np.convolve(np.pad(lip, 1, "edge"), np.ones(3) / 3, "valid") for lip in found])
    step = (np.maximum(edges, 0) + INSET_MARGINS).reshape(-1, 1) * across
    insets = np.zeros_like(landmarks)
    insets[inner] = step
    for ring in _RINGS:
        insets[list(ring)] = np.clip(1 - outward(list(ring), start, across), 0, 1)[:, None] * step
    lower, height = start[len(_UPPER) :], across[len(_UPPER) :]
    insets[list(_BELOW)] = np.maximum(LEAST_BELOW - outward(list(_BELOW), lower, height), 0)[:, None] * height
    return insets.astype(np.float32)


def _split(profile: Array, span: tuple[float, float]) -> float:
    """Find where a profile (29, 3) changes from the mouth's inside to the lip, in lip heights."""
    spans = [index for index, place in enumerate(PROFILE) if span[0] <= place <= span[1]]
    spread = [profile[:index].var(0).sum() * index + profile[index:].var(0).sum() * (len(profile) - index)
              for index in spans]  # fmt: skip
    return float(PROFILE[spans[int(np.argmin(spread))]])
