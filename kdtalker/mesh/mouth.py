"""The drawn inside of the mouth: dark, two rows of teeth, a hint of tongue, between the target's inner lips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from kdtalker.motion import Array
from kdtalker.renderer import Image
from kdtalker.tracker import LIP_PAIRS, MOUTH_CORNERS

SUPERSAMPLING = 4
TEETH_LENGTH, LOWER_TEETH_LENGTH, TOOTH_WIDTH = 0.125, 0.085, 0.15  # in mouth widths
OPEN_FROM, OPEN_TO = 0.012, 0.05  # gap beyond the photograph's own, in mouth widths, over which the drawing appears
OWN_MOUTH = 0.10  # a photographed gap, in mouth widths, from which on its own inside is worth keeping
_OUTER_LIPS = (0, 37, 267, 17, 84, 314, 40, 270, 91, 321)


@dataclass(frozen=True)
class MouthColours:
    """RGB 0..255 of the portrait's own mouth: dark, teeth, tongue (3,) each."""

    dark: Array
    teeth: Array
    tongue: Array

    @staticmethod
    def of(picture: Image, landmarks: Array) -> MouthColours:
        """Taken from lips and cheeks: teeth are as bright as the face is lit, dark and tongue are lip-coloured."""
        rows, columns = (np.clip(np.round(landmarks[:, axis]).astype(int), 0, len(picture) - 1) for axis in (1, 0))
        colours = picture[rows, columns].astype(np.float32)
        lips = np.median(colours[list(_OUTER_LIPS)], axis=0)
        skin = np.median(colours[[50, 280, 101, 330, 205, 425, 151]], axis=0)
        brightness = float(skin.mean())
        warmth = skin / brightness
        teeth = min(brightness * 1.05 + 25, 215) * (0.6 + 0.4 * warmth)
        return MouthColours(0.13 * lips + 2, np.minimum(teeth, 225), 0.5 * lips)


def draw_mouth(frame: Image, colours: MouthColours, vertices: Array, jaw_closed: Array, photographed: Array) -> None:
    """Paint into frame (S, S, 3). vertices (468, 3) px as posed; jaw_closed (468, 3) px the same head with its mouth
    shut, which the upper teeth hang from; photographed (468, 3) px, whose own open mouth is kept where it is enough."""
    width = float(np.linalg.norm(vertices[MOUTH_CORNERS[0], :2] - vertices[MOUTH_CORNERS[1], :2])) + 1e-6
    gap, own_gap = _gap(vertices) / width, _gap(photographed) / _width(photographed)
    appears = float(np.clip((gap - own_gap - OPEN_FROM) / (OPEN_TO - OPEN_FROM), 0, 1))
    if own_gap > OWN_MOUTH:
        appears *= float(np.clip((gap / own_gap - 1.4) / 0.6, 0, 1))
    if appears == 0:
        return
    lips = vertices[list(INNER_UPPER_LIP + INNER_LOWER_LIP[-2:0:-1]), :2]
    low = np.maximum(np.floor(lips.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(lips.max(0)).astype(int) + 3, len(frame))
    if (high - low).min() < 2:
        return
    area = frame[low[1] : high[1], low[0] : high[0]]
    mask = _soft_mask(lips - low, area.shape[:2], width)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    inside = _inside((x, y), vertices, jaw_closed, colours, width)
    weight = (mask * appears)[..., None]
    area[:] = (weight * inside + (1 - weight) * area + 0.5).astype(np.uint8)


def _width(vertices: Array) -> float:
    return float(np.linalg.norm(vertices[MOUTH_CORNERS[0], :2] - vertices[MOUTH_CORNERS[1], :2])) + 1e-6


def _gap(vertices: Array) -> float:
    """Mean gap of the middle inner lip pairs in px."""
    upper, lower = np.array(LIP_PAIRS[:3]).T
    return float(np.linalg.norm(vertices[lower, :2] - vertices[upper, :2], axis=-1).mean())


def _soft_mask(lips: Array, shape: tuple[int, ...], width: float) -> Array:
    """(h, w) 0..1 inside the lips (N, 2), its edge softened as a camera would."""
    big = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    corners = np.round((lips + 0.5) * SUPERSAMPLING * 16 - 8).astype(np.int32)
    cv2.fillPoly(big, [corners.reshape(-1, 1, 2)], 255, shift=4)
    mask = cv2.resize(big, (shape[1], shape[0]), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(0.6, width / 90)), np.float32)


def _inside(
    pixels: tuple[Array, Array], vertices: Array, jaw_closed: Array, colours: MouthColours, width: float
) -> Array:
    """(h, w, 3): the mouth's inside in the mouth's own axes, u along the corners -0.5..0.5, v down, in widths."""
    left, right = vertices[MOUTH_CORNERS[0], :2], vertices[MOUTH_CORNERS[1], :2]
    across = (right - left) / width
    middle = (left + right) / 2

    def axes(px: Array, py: Array) -> tuple[Array, Array]:
        dx, dy = px - middle[0], py - middle[1]
        return (dx * across[0] + dy * across[1]) / width, (dy * across[0] - dx * across[1]) / width

    def line(points: Array) -> Array:
        u, v = axes(points[:, 0], points[:, 1])
        order = np.argsort(u)
        height: Array = np.interp(grid_u, u[order], v[order]).astype(np.float32)
        return height

    grid_u, grid_v = axes(*pixels)
    upper, lower = line(vertices[list(INNER_UPPER_LIP)]), line(vertices[list(INNER_LOWER_LIP)])
    bite = line((jaw_closed[list(INNER_UPPER_LIP)] + jaw_closed[list(INNER_LOWER_LIP)]) * np.float32(0.5))
    opening = np.maximum(lower - upper, 1e-3)
    depth = np.clip((grid_v - upper) / opening, 0, 1)
    arch = np.clip(1 - (grid_u / 0.5) ** 2, 0, 1)  # light falls off towards the corners

    colour = colours.dark[None, None] * (1.0 + 0.4 * depth[..., None])
    tongue = _rise(depth, 0.55, 0.95) * _rise(arch, 0.35, 0.8) * _rise(opening, 0.08, 0.25)
    colour = _mix(colour, colours.tongue * 0.75, 0.8 * tongue)
    soft = 0.02
    lower_edge = lower - LOWER_TEETH_LENGTH * arch * _rise(opening, 0.16, 0.4)
    low_teeth = _rise(grid_v, lower_edge - soft, lower_edge + soft) * _rise(arch, 0.3, 0.7) * _rise(opening, 0.14, 0.35)
    colour = _mix(colour, _teeth(colours, grid_u, 0.5 * arch, 0.12), 0.75 * low_teeth)
    upper_edge = bite + TEETH_LENGTH * (0.55 + 0.45 * arch) - 0.035
    up_teeth = _rise(-grid_v, -upper_edge - soft, -upper_edge + soft) * _rise(arch, 0.12, 0.5)
    shade = (0.55 + 0.45 * _rise(grid_v - upper, 0.0, 0.07)) * (0.35 + 0.65 * arch)
    colour = _mix(colour, _teeth(colours, grid_u, shade, TOOTH_WIDTH), up_teeth)
    return colour


def _teeth(colours: MouthColours, u: Array, shade: Array, tooth_width: float) -> Array:
    """Teeth colour with the faint gaps between teeth, which narrow towards the corners as an arch does."""
    along = np.arcsin(np.clip(u / 0.52, -1, 1)) * 0.52 / tooth_width
    nearness = np.abs(along - np.round(along))
    gaps = 1 - 0.1 * np.exp(-((nearness / 0.09) ** 2))
    teeth: Array = colours.teeth[None, None] * (shade * gaps)[..., None]
    return teeth


def _rise(value: Array, start: Array | float, end: Array | float) -> Array:
    """Smooth step from 0 at start to 1 at end."""
    t = np.clip((value - start) / (np.asarray(end) - start), 0, 1)
    step: Array = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def _mix(below: Array, above: Array, weight: Array) -> Array:
    mixed: Array = below + weight[..., None] * (above - below)
    return mixed
