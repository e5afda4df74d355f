"""Composite the inside of the mouth, tongue and depth, lower and upper teeth, in one loop over the pixels that are
seen; `MouthInterior.draw` is its definition."""

from __future__ import annotations

import math

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.compiled import Number, kernel, single
from kdtalker.renderers.mesh.mouth.frame import CELL_PX, HEIGHT_PX, TEXTURE_PX, WIDTH_PX

FrameBox = tuple[int, int, int, int]  # left, top, right and bottom in px of the mouth's frame, the latter two excluded

_ZERO, _ONE = single(0), single(1)

WHOLE_FRAME: FrameBox = (0, 0, WIDTH_PX, HEIGHT_PX)


@kernel(fastmath=True)
def draw_layers(  # noqa: PLR0917 (compiled code takes no keywords)
    textures: Array, light: Array, base: Array, moves: Array, scale: Array, saturation: float, box: FrameBox
) -> Image:
    """Draw a box (h, w, 3) of the mouth's frame from textures (2, 4, TEXTURE_PX, WIDTH_PX), upper and lower, and what
    `MouthInterior.predict_light_logits` predicts: light (7, rows, columns), base (3,), moves (2, 2), scale (2,)."""
    left, top, right, bottom = box
    image = np.empty((bottom - top, right - left, 3), np.uint8)
    logits, colour = np.empty(7, np.float32), np.empty(3, np.float32)
    middle, narrowed = np.float32((WIDTH_PX - 1) / 2), np.exp(-scale)
    for y in range(top, bottom):
        row, below, down = _find_cell(y, light.shape[1])
        for x in range(left, right):
            column, beside, across = _find_cell(x, light.shape[2])
            for channel in range(7):
                upper, lower = light[channel, row], light[channel, below]
                upper_row = upper[column] + across * (upper[beside] - upper[column])
                lower_row = lower[column] + across * (lower[beside] - lower[column])
                logits[channel] = upper_row + down * (lower_row - upper_row)
            for channel in range(3):
                colour[channel] = _sigmoid(logits[channel] + base[channel])
            for layer in (1, 0):
                u = middle + narrowed[layer] * (np.float32(x) - middle - moves[layer, 0])
                v = np.float32(y) - moves[layer, 1]
                if u <= -_ONE or v <= -_ONE or u >= np.float32(WIDTH_PX) or v >= np.float32(TEXTURE_PX):
                    continue
                alpha = _sample(textures, layer, 3, u, v)
                if alpha > 0:
                    alpha *= _sigmoid(logits[5 + layer] + np.float32(2))
                    gain = math.exp(logits[3 + layer])
                    for channel in range(3):
                        colour[channel] += alpha * (gain * _sample(textures, layer, channel, u, v) - colour[channel])
            grey = (colour[0] + colour[1] + colour[2]) / np.float32(3)
            for channel in range(3):
                level = np.float32(255) * (grey + np.float32(saturation) * (colour[channel] - grey))
                image[y - top, x - left, channel] = np.uint8(np.rint(min(max(level, _ZERO), np.float32(255))))
    return image


@kernel(fastmath=True)
def _find_cell(place: int, cells: int) -> tuple[int, int, Number]:
    """Find the cells before and after a px, and the share of the latter, for linear interpolation."""
    at = max((np.float32(place) + np.float32(0.5)) / np.float32(CELL_PX) - np.float32(0.5), _ZERO)
    cell = min(int(at), cells - 1)
    return cell, min(cell + 1, cells - 1), at - np.float32(cell)


@kernel(fastmath=True)
def _sigmoid(value: Number) -> Number:
    return _ONE / (_ONE + math.exp(-value))


@kernel(fastmath=True)
def _sample(textures: Array, layer: int, channel: int, x: Number, y: Number) -> Number:
    """Interpolate a channel of a texture linearly at (x, y), greater than -1; beyond its border it is 0."""
    left, top = int(x + _ONE) - 1, int(y + _ONE) - 1
    right, down = x - np.float32(left), y - np.float32(top)
    total = _ZERO
    for row, share in ((top, _ONE - down), (top + 1, down)):
        if 0 <= row < TEXTURE_PX:
            if left >= 0:
                total += share * (_ONE - right) * textures[layer, channel, row, left]
            if left + 1 < WIDTH_PX:
                total += share * right * textures[layer, channel, row, left + 1]
    return total
