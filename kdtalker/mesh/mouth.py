"""The inside of the mouth: the photograph's own where it was open, else drawn; always between the target's lips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.mesh.curves import soft_polygon, spline
from kdtalker.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from kdtalker.motion import Array
from kdtalker.renderer import Image
from kdtalker.tracker import LIP_PAIRS, MOUTH_CORNERS

OPEN_FROM, OPEN_TO = 0.012, 0.05  # gap beyond the photograph's own, in mouth widths, over which the drawing appears
OWN_SOONER = 2  # times sooner the photograph's own inside appears, which looks much like what it takes over from
OWN_MOUTH = 0.10  # a photographed gap, in mouth widths, from which on its own inside is worth keeping
OWN_MARGIN = 0.025  # of it next to the lips is left out
ROWS_APART = 0.2  # two rows of teeth: by how much the line between them is darker than the darker one
TEETH_LIGHT = 0.65  # of the light on the skin, at least, is what teeth show
LIP_FREE = 0.9  # of the photographed gap; below it there is often lip
# All in mouth widths. Upper teeth end this far below the line where the lips meet, less towards the corners; lower
# teeth stand that far out of the lower lip.
UPPER_TEETH, LOWER_TEETH = 0.062, 0.05
TOOTH_EDGES = (0.0, 0.155, 0.28, 0.385, 0.46)  # from the middle outward: incisors, canine, premolars seen askew
TOOTH_DROPS = (0.0, 0.013, 0.004, 0.02)  # by which each of them is shorter than the first
_OUTER_LIPS = (0, 37, 267, 17, 84, 314, 40, 270, 91, 321)
_CHEEKS = (50, 280, 101, 330, 205, 425, 151)


@dataclass(frozen=True)
class Axes:
    """A frame in the picture: u along the mouth's corners, -0.5..0.5, v down, both in mouth widths."""

    middle: Array
    across: Array
    width: float

    @staticmethod
    def of(vertices: Array) -> Axes:
        left, right = vertices[MOUTH_CORNERS[0], :2], vertices[MOUTH_CORNERS[1], :2]
        width = float(np.linalg.norm(right - left)) + 1e-6
        middle, across = (left + right) / 2, (right - left) / width
        return Axes(np.asarray(middle, np.float32), np.asarray(across, np.float32), width)

    def to(self, x: Array, y: Array) -> tuple[Array, Array]:
        """px to u, v."""
        dx, dy = x - self.middle[0], y - self.middle[1]
        return (
            (dx * self.across[0] + dy * self.across[1]) / self.width,
            (dy * self.across[0] - dx * self.across[1]) / self.width,
        )

    def back(self, u: Array, v: Array) -> tuple[Array, Array]:
        """The inverse of `to`."""
        x = self.middle[0] + self.width * (u * self.across[0] - v * self.across[1])
        y = self.middle[1] + self.width * (u * self.across[1] + v * self.across[0])
        return x, y

    def line(self, points: Array, u: Array) -> Array:
        """The height v at each u of a curve through points (N, 2) px that runs along the mouth."""
        along, height = self.to(points[:, 0], points[:, 1])
        order = np.argsort(along)
        return np.interp(u, along[order], height[order]).astype(np.float32)


@dataclass(frozen=True)
class Mouth:
    """The photograph's mouth. RGB 0..255 of dark, teeth, tongue (3,) each; jaw_closed (468, 3) px, the head with its
    mouth shut; split, the share of the photographed gap that hangs from the upper jaw, what is below it moves with
    the lower lip; None where the mouth is too shut to show an inside of its own."""

    picture: Image
    landmarks: Array
    jaw_closed: Array
    dark: Array
    teeth: Array
    tongue: Array
    split: float | None

    @staticmethod
    def of(picture: Image, landmarks: Array, jaw_closed: Array) -> Mouth:
        """Teeth are as bright as the face is lit, dark and tongue are lip-coloured; a grey portrait's stay grey."""
        rows, columns = (np.clip(np.round(landmarks[:, axis]).astype(int), 0, len(picture) - 1) for axis in (1, 0))
        colours = picture[rows, columns].astype(np.float32)
        lips, skin = (np.median(colours[list(points)], axis=0) for points in (_OUTER_LIPS, _CHEEKS))
        light = float(skin.mean()) + 1
        tint = lips - lips.mean()
        dark = 0.1 * lips.mean() + 3 + 0.22 * tint
        tongue = 0.3 * lips.mean() + 0.22 * light + 0.9 * tint
        teeth = min(0.9 * light + 22, 212) * (0.5 + 0.5 * skin / light)
        dark, teeth, tongue = (np.clip(colour, 0, 232).astype(np.float32) for colour in (dark, teeth, tongue))
        is_open = _gap(landmarks) > OWN_MOUTH * Axes.of(landmarks).width
        split = _split(picture, landmarks, light) if is_open else None
        return Mouth(picture, landmarks, jaw_closed, dark, teeth, tongue, split)

    def draw(self, frame: Image, vertices: Array, jaw_closed: Array) -> None:
        """Paint into frame (S, S, 3). vertices (468, 3) px as posed; jaw_closed (468, 3) px the same head with its
        mouth shut, which the upper teeth hang from."""
        axes = Axes.of(vertices)
        foreshortened = _height(jaw_closed) / _height(self.jaw_closed)
        beyond = (_gap(vertices) - foreshortened * _gap(self.landmarks)) / axes.width
        if self.split is not None:
            beyond *= OWN_SOONER if beyond > 0 else -OWN_SOONER
        appears = float(np.clip((beyond - OPEN_FROM) / (OPEN_TO - OPEN_FROM), 0, 1))
        if appears == 0:
            return
        upper, lower = (spline(vertices[list(lip), :2]) for lip in (INNER_UPPER_LIP, INNER_LOWER_LIP))
        lips = np.concatenate([upper, lower[-2:0:-1]])
        low = np.maximum(np.floor(lips.min(0)).astype(int) - 2, 0)
        high = np.minimum(np.ceil(lips.max(0)).astype(int) + 3, len(frame))
        if (high - low).min() < 2:
            return
        area = frame[low[1] : high[1], low[0] : high[0]]
        x, y = np.meshgrid(*(np.arange(low[axis], high[axis], dtype=np.float32) for axis in (0, 1)))
        u, v = axes.to(x, y)
        shut = (jaw_closed[list(INNER_UPPER_LIP), :2] + jaw_closed[list(INNER_LOWER_LIP), :2]) / 2
        bite = axes.line(np.asarray(shut, np.float32), u)
        soft = max(0.014, 0.8 / axes.width)
        inside = self._drawn(u, v, np.stack([axes.line(upper, u), axes.line(lower, u), bite]), soft)
        if self.split is not None:
            inside = self._own(inside, x, y, vertices, jaw_closed)
        weight = (soft_polygon(area.shape, lips - low, max(0.6, axes.width / 90)) * appears)[..., None]
        area[:] = (weight * inside + (1 - weight) * area + 0.5).astype(np.uint8)

    def _drawn(self, u: Array, v: Array, lines: Array, soft: float) -> Array:
        """(h, w, 3): dark, tongue and rows of teeth. lines (3, h, w): the heights of upper lip, lower lip, bite."""
        upper, lower, bite = lines
        opening, below_lip, above_lip = np.maximum(lower - upper, 1e-3), v - upper, lower - v
        arch = np.clip(1 - (u / 0.5) ** 2, 0, 1)  # light falls off towards the corners
        colour = np.broadcast_to(self.dark, (*u.shape, 3))
        tongue = _rise(-above_lip, -0.55 * opening, -0.1 * opening) * _rise(arch, 0.2, 0.8) * _rise(opening, 0.1, 0.3)
        colour = _mix(colour, self.tongue * (0.5 + 0.3 * arch[..., None]), 0.85 * tongue)
        if self.split is None:
            offset, drop = _tooth(1.45 * u)
            height = LOWER_TEETH * (0.5 + 0.5 * arch) * _rise(opening, 0.12, 0.34) - 0.5 * drop
            shade = (0.36 + 0.22 * _rise(above_lip, 0.0, 0.05)) * (0.3 + 0.7 * arch) * (1 - 0.16 * offset**4)
            standing = _rise(height - above_lip, -soft, soft) * _rise(arch, 0.35, 0.75) * _rise(opening, 0.1, 0.25)
            colour = _mix(colour, self.teeth * shade[..., None], 0.85 * standing)
        if not self.split:
            offset, drop = _tooth(u)
            edge = bite + UPPER_TEETH * (0.35 + 0.65 * arch) - drop - 0.016 * offset**6
            shade = (0.5 + 0.5 * _rise(below_lip, 0.0, 0.075)) * (0.22 + 0.78 * _rise(arch, 0.05, 0.8))
            shade *= (1 - 0.07 * offset**2 - 0.13 * offset**12) * (1 - 0.1 * _rise(v - edge, -0.05, 0.0))
            hanging = _rise(edge - v, -soft, soft) * _rise(arch, 0.1, 0.45)
            colour = _mix(colour, self.teeth * shade[..., None], hanging)
        return colour

    def _own(self, drawn: Array, x: Array, y: Array, vertices: Array, jaw_closed: Array) -> Array:
        """What the photograph shows between its lips, over what is drawn: the upper part hangs from the upper jaw,
        the lower part moves with the lower lip; neither is stretched."""
        head, own = Axes.of(jaw_closed), Axes.of(self.jaw_closed)
        middle = [lower for _, lower in LIP_PAIRS]
        now, then = head.to(*vertices[middle, :2].mean(0)), own.to(*self.landmarks[middle, :2].mean(0))
        u, v = head.to(x, y)
        split = self.split or 0.0
        colour = drawn
        if split < LIP_FREE:
            lower_u, lower_v = u + (then[0] - now[0]), v + (then[1] - now[1])
            top, bottom, there = self._between(own, lower_u)
            start = (-0.06, 0.0) if split else (0.0, 0.04)
            there = there * _rise(lower_v - top - split * (bottom - top), *start)
            colour = _mix(colour, self._at(*own.back(lower_u, np.minimum(lower_v, bottom))), there)
        if split:
            top, bottom, there = self._between(own, u)
            there = there * _rise(top + split * (bottom - top) - v, 0.0, 0.03)
            colour = _mix(colour, self._at(*own.back(u, np.maximum(v, top))), there)
        return colour

    def _between(self, axes: Axes, u: Array) -> tuple[Array, Array, Array]:
        """At each u the heights v of the photographed lips, a margin within, and 0..1 how wide they are apart."""
        lips = (spline(self.landmarks[list(lip), :2]) for lip in (INNER_UPPER_LIP, INNER_LOWER_LIP))
        top, bottom = (axes.line(lip, u) for lip in lips)
        gap = _gap(self.landmarks) / axes.width
        return top + OWN_MARGIN, bottom - OWN_MARGIN, _rise(bottom - top, 0.35 * gap, 0.75 * gap)

    def _at(self, x: Array, y: Array) -> Array:
        """(h, w, 3): the photograph at places in px."""
        across, down = x.astype(np.float32), y.astype(np.float32)
        shown = cv2.remap(self.picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return shown.astype(np.float32)


def _split(picture: Image, landmarks: Array, light: float) -> float:
    """Where the photographed inside comes apart when the jaw drops: at the darkest line between two bright parts; all
    of it stands in the lower jaw (0) if the upper part is too dark for teeth in that light, else hangs from the upper
    one."""
    axes = Axes.of(landmarks)
    upper, lower = (spline(landmarks[list(lip), :2]) for lip in (INNER_UPPER_LIP, INNER_LOWER_LIP))
    share = np.linspace(0.03, 0.97, 20, dtype=np.float32)
    u, down = np.meshgrid(np.linspace(-0.2, 0.2, 23, dtype=np.float32), share)
    top, bottom = axes.line(upper, u), axes.line(lower, u)
    columns, rows = (
        np.clip(np.round(place).astype(int), 0, len(picture) - 1) for place in axes.back(u, top + down * (bottom - top))
    )
    row_light = picture[rows, columns].mean((1, 2))
    around = np.minimum(np.maximum.accumulate(row_light), np.maximum.accumulate(row_light[::-1])[::-1])
    depth = 1 - row_light / (around + 1)
    line = int(np.argmax(depth)) if depth.max() > ROWS_APART else len(share)
    return float(min(share[line:].min(initial=1), LIP_FREE)) if row_light[:line].max() > TEETH_LIGHT * light else 0.0


def _height(vertices: Array) -> float:
    """From the bridge of the nose to the chin, in px."""
    return float(np.linalg.norm(vertices[168, :2] - vertices[152, :2]))


def _gap(vertices: Array) -> float:
    """Mean gap of the middle inner lip pairs in px."""
    upper, lower = np.array(LIP_PAIRS[:3]).T
    return float(np.linalg.norm(vertices[lower, :2] - vertices[upper, :2], axis=-1).mean())


def _tooth(u: Array) -> tuple[Array, Array]:
    """Where on its tooth a place u along the row lies, -1..1 from gap to gap, and by how much the tooth is shorter
    than the middle ones."""
    place = np.abs(u)
    which = np.clip(np.searchsorted(TOOTH_EDGES, place, side="right") - 1, 0, len(TOOTH_DROPS) - 1)
    edges = np.array(TOOTH_EDGES, np.float32)
    offset = (place - edges[which]) / (edges[which + 1] - edges[which]) * 2 - 1
    return np.clip(offset, -1, 1).astype(np.float32), np.array(TOOTH_DROPS, np.float32)[which]


def _rise(value: Array, start: Array | float, end: Array | float) -> Array:
    """Smooth step from 0 at start to 1 at end."""
    t = np.clip((value - start) / (np.asarray(end) - start), 0, 1)
    step: Array = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def _mix(below: Array, above: Array, weight: Array) -> Array:
    mixed: Array = below + weight[..., None] * (above - below)
    return mixed
