"""Lids that close: where they meet, the skin that covers the eye, and the line of lashes they leave."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.mesh.curves import soft_polygon, spline
from kdtalker.motion import Array
from kdtalker.renderer import Image
from kdtalker.tracker import EYE_CONTOURS

SHUT_GAP = 0.4  # lids nearer than this share of the photograph's gap are drawn nearer still, so that no slit is left
LOWER_LID_SHARE = 0.3  # of the way by which they are brought together
OVERLAP = 0.3  # of the photograph's gap, by which shut lids cover one another
# Shut lids show skin from this share of the gap above the photographed edge, not its lashes and iris.
SKIN_FROM_ABOVE = 0.28
CORNER = 0.35  # of the eye's width, over which the white stretches as the iris comes nearer
LEAST_GAP_PX = 1.0  # eyes photographed shut have nothing to close
CLOSING_FROM, CLOSING_TO = 0.06, 0.3  # shares of the way down over which the drawn lid appears
# Of the eye's width: how far around the eye the skin is painted over the photographed lashes, how thick the line is.
LASHES_REACH, LASH_WIDTH = 0.18, 0.07
LASH_STRENGTH = 0.9
BULGE = 0.05  # by which the middle of a shut lid is lighter than its rim

# Landmarks around each eye that a blink does not move; the eyeball's picture follows them.
_SOCKETS = ((33, 133, 226, 244, 229, 231, 223, 27, 23), (263, 362, 446, 464, 449, 451, 443, 257, 253))


@dataclass(frozen=True)
class Lids:
    """landmarks (468, 3) px of the photograph; bare (S, S, 3), the photograph with its eyes painted over by the skin
    around them; lashes (2, 3), the colour of each eye's lashes, RGB 0..255."""

    landmarks: Array
    bare: Image
    lashes: Array

    @staticmethod
    def of(picture: Image, landmarks: Array) -> Lids:
        bare, lashes = picture.copy(), []
        for contour in EYE_CONTOURS:
            width = float(np.linalg.norm(landmarks[contour[0], :2] - landmarks[contour[8], :2]))
            _paint_over(bare, landmarks[list(contour), :2], width)
            rows, columns = (
                np.clip(np.round(landmarks[list(contour[9:]), axis]).astype(int), 0, len(picture) - 1)
                for axis in (1, 0)
            )
            colours = picture[rows, columns].astype(np.float32)
            lashes.append(0.75 * colours[np.argsort(colours.mean(1))[:3]].mean(0))
        return Lids(landmarks, bare, np.array(lashes, np.float32))

    def move(self, vertices: Array) -> tuple[Array, Array]:
        """Target vertices (468, 3) px with lids that meet, and the places (468, 3) px in the photograph they show."""
        moved, places = vertices.copy(), self.landmarks.copy()
        for contour in EYE_CONTOURS:
            lower, upper = list(contour[1:8]), list(contour[9:])
            down, own = _gaps(self.landmarks, lower, upper)
            share = _share(vertices, self.landmarks, contour)
            near = np.maximum(SHUT_GAP - share, 0) / SHUT_GAP
            wanted = np.where(own < LEAST_GAP_PX, share, np.maximum(share, 0) * (1 - near) - OVERLAP * near)
            step = (share - wanted)[:, None] * down
            moved[upper, :2] += (1 - LOWER_LID_SHARE) * step
            moved[lower, :2] -= LOWER_LID_SHARE * step
            closing = np.where(own < LEAST_GAP_PX, 0, np.clip(1 - share, 0, 1))
            places[upper, :2] -= (SKIN_FROM_ABOVE * closing)[:, None] * down
        return moved, places

    def carry_eyeballs(self, vertices: Array, flow: Array, still_px: float, look: Array) -> None:
        """Inside the lids the eyeball's picture follows its socket and, but for the corners of the eye, look (2,) px:
        writes places in the photograph into flow (2, S, S), unless both are less than still_px."""
        for contour, socket in zip(EYE_CONTOURS, _SOCKETS, strict=True):
            points = vertices[list(contour), :2]
            low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
            high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, flow.shape[1])
            moved = np.abs(vertices[list(socket), :2] - self.landmarks[list(socket), :2]).max()
            if (high <= low).any() or max(moved, np.abs(look).max()) < still_px:
                continue
            y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
            held = _in_the_corners(x, y, points)
            place = np.stack([x - held * look[0], y - held * look[1], np.ones_like(x)], -1)
            place = place @ self._to_photograph(vertices, socket)
            flow[:, low[1] : high[1], low[0] : high[0]] = place.transpose(2, 0, 1)

    def draw(self, frame: Image, vertices: Array) -> None:
        """Cover the eyes in frame (S, S, 3), whose vertices (468, 3) px `move` has moved, as far as the lids have come
        down: bare skin from the photographed edge of the upper lid to where it is now, lashes along its edge."""
        for contour, socket, lashes in zip(EYE_CONTOURS, _SOCKETS, self.lashes, strict=True):
            _, own = _gaps(self.landmarks, list(contour[1:8]), list(contour[9:]))
            closing = 1 - float(_share(vertices, self.landmarks, contour).mean())
            weight = float(np.clip((closing - CLOSING_FROM) / (CLOSING_TO - CLOSING_FROM), 0, 1))
            if own.mean() < LEAST_GAP_PX or weight == 0:
                continue
            rim = [contour[0], *contour[9:], contour[8]]
            edge = spline(vertices[rim, :2])
            width = float(np.linalg.norm(edge[-1] - edge[0]))
            to_photograph = self._to_photograph(vertices, socket)
            turn = np.linalg.inv(to_photograph[:2])
            opened = spline((self.landmarks[rim, :2] - to_photograph[2]) @ turn)
            outward = opened - vertices[list(contour), :2].mean(0)
            opened += 0.6 * LASHES_REACH * width * outward / np.linalg.norm(outward, axis=1, keepdims=True)
            self._cover(frame, edge, opened, to_photograph, weight)
            _line(frame, edge, lashes, width, LASH_STRENGTH * weight)

    def _cover(self, frame: Image, edge: Array, opened: Array, to_photograph: Array, weight: float) -> None:
        """Bare skin between two curves (N, 2) px."""
        lid = np.concatenate([opened, edge[::-1]])
        width = float(np.linalg.norm(edge[-1] - edge[0]))
        place = _area(frame, lid, 0.15 * width)
        if place is None:
            return
        low, area = place
        matrix = to_photograph.T.copy()
        matrix[:, 2] += matrix[:, :2] @ low
        way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size, edge_of = area.shape[1::-1], cv2.BORDER_REPLICATE
        skin = np.asarray(cv2.warpAffine(self.bare, matrix, size, flags=way, borderMode=edge_of), np.float32)
        covered = soft_polygon(area.shape, lid - low, max(0.6, 0.025 * width))[..., None]
        middle = cv2.GaussianBlur(covered, (0, 0), 0.12 * width)[..., None]
        lit = skin * (1 - BULGE + 2 * BULGE * middle)
        area[:] = np.clip(area + weight * covered * (lit - area) + 0.5, 0, 255).astype(np.uint8)

    def _to_photograph(self, vertices: Array, socket: tuple[int, ...]) -> Array:
        """(3, 2): px of the frame (x, y, 1) to px of the photograph, as the eye's socket has moved."""
        now = np.c_[vertices[list(socket), :2], np.ones(len(socket))]
        return np.asarray(np.linalg.lstsq(now, self.landmarks[list(socket), :2], rcond=None)[0], np.float64)


def _in_the_corners(x: Array, y: Array, contour: Array) -> Array:
    """How far places in px take part in the eye's turning: 1 in its middle, 0 at the corners of contour (16, 2)."""
    across = contour[8] - contour[0]
    along = ((x - contour[0, 0]) * across[0] + (y - contour[0, 1]) * across[1]) / max(float(across @ across), 1e-6)
    share = np.clip(np.minimum(along, 1 - along) / CORNER, 0, 1)
    return np.asarray(share**2 * (3 - 2 * share), np.float32)


def _paint_over(picture: Image, contour: Array, width: float) -> None:
    """Replace the eye within contour (16, 2) px, and its lashes, by a smooth continuation of the skin around it."""
    place = _area(picture, contour, 0.5 * width)
    if place is None or width < 2:
        return
    low, area = place
    reach = max(1, round(LASHES_REACH * width))
    mask = np.zeros(area.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(contour[[*range(9), *range(15, 8, -1)]] - low).astype(np.int32)], 255)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    mask = np.asarray(cv2.dilate(mask, brush), np.uint8)
    filled = cv2.inpaint(np.ascontiguousarray(area), mask, max(3, 0.1 * width), cv2.INPAINT_TELEA).astype(np.float32)
    smooth = cv2.GaussianBlur(filled, (0, 0), max(0.8, 0.08 * width))
    weight = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.6, 0.03 * width))[..., None]
    area[:] = (area + weight * (smooth - area) + 0.5).astype(np.uint8)


def _line(frame: Image, edge: Array, colour: Array, width: float, strength: float) -> None:
    """Lashes along edge (N, 2) px, from the first eye corner to the other: thin at both ends."""
    place = _area(frame, edge, 0.15 * width)
    if place is None:
        return
    low, area = place
    along = np.gradient(edge, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], -1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6)
    swell = np.sin(np.pi * np.linspace(0.02, 0.96, len(edge))) ** 0.6
    half = (LASH_WIDTH * width / 2 * swell)[:, None] * across
    ribbon = np.concatenate([edge + half, (edge - half)[::-1]])
    line = strength * soft_polygon(area.shape, ribbon - low, max(0.5, 0.018 * width))[..., None]
    area[:] = (area + line * (colour - area) + 0.5).astype(np.uint8)


def _area(frame: Image, points: Array, margin: float) -> tuple[Array, Image] | None:
    """The part of frame around points (N, 2) px: where it begins (2,), and a view of it; None where it is empty."""
    low = np.maximum(np.floor(points.min(0) - margin).astype(int), 0)
    high = np.minimum(np.ceil(points.max(0) + margin).astype(int), frame.shape[1::-1])
    area = frame[low[1] : high[1], low[0] : high[0]] if (high > low).all() else frame[:0, :0]
    return (low.astype(np.float32), area) if area.size else None


def _gaps(landmarks: Array, lower: list[int], upper: list[int]) -> tuple[Array, Array]:
    """From upper to lower lid: vectors (7, 2) and their lengths (7,)."""
    down = landmarks[lower, :2] - landmarks[upper, :2]
    return down, np.linalg.norm(down, axis=-1)


def _share(vertices: Array, photographed: Array, contour: tuple[int, ...]) -> Array:
    """How open each of the 7 lid pairs is, as a share of the photograph's gap."""
    lower, upper = list(contour[1:8]), list(contour[9:])
    down, own = _gaps(photographed, lower, upper)
    gap, _ = _gaps(vertices, lower, upper)
    share: Array = (gap * down).sum(-1) / np.maximum(own**2, 1e-6)
    return share
