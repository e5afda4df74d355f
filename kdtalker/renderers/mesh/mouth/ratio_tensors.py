"""Pixel-unshuffle crops to the input of the graph of `RatioNetwork`, and decode its output to a log ratio image, in
compiled loops: as operators of the graph this took half as long as its convolutions."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.compiled import kernel
from kdtalker.renderers.mesh.eyes.parts import border_taper
from kdtalker.renderers.mesh.mouth.shading import MOST_LIGHTER, SIDE_PX

INPUTS = 6  # channels of a crop: RGB, mask of the opening, displacement in x and y
CELLS = SIDE_PX // 2  # a side of the network's tensors, whose cells hold 2 x 2 px
CELL_CHANNELS = 32  # of the graph's input: 4 INPUTS, two of the place and zeros, for convolutions run in blocks of 16
DISPLACEMENT_UNIT_PX = 6.0  # of the crop
STILL_PX2 = 0.1  # mean square displacement at which half of the ratio is applied
MOST_LOG_RATIO = 0.4  # limit of the log ratio, approached softly


def pixel_unshuffle_inputs(crop: Image, opening: Array, displacement: Array) -> Array:
    """Pixel-unshuffle a crop (SIDE_PX, SIDE_PX, 3), its mask (SIDE_PX, SIDE_PX) 0..1 and displacement (2, SIDE_PX,
    SIDE_PX) px to the graph's input (1, CELL_CHANNELS, CELLS, CELLS)."""
    cells = _empty_cells().copy()
    _pixel_unshuffle(crop, opening, displacement, cells)
    return cells[None]


def decode_log_ratio(cells: Array, opening: Array, displacement: Array) -> Array:
    """Decode the graph's output (1, 6, CELLS, CELLS) into a log ratio image (SIDE_PX, SIDE_PX, 3), at most MOST_LIGHTER
    and 0 inside the mouth; opening and displacement as for `pixel_unshuffle_inputs`."""
    moved = float(np.square(displacement).mean())
    exponential = np.asarray(cv2.exp(_upsample_ratio(cells[0])), np.float32)
    still_share = moved / (moved + STILL_PX2)
    return np.asarray(_limit(exponential, opening, border_taper(SIDE_PX), still_share), np.float32)


@cache
def _empty_cells() -> Array:
    """Make the input of a black crop: zeros but for the place of each cell, -1..1 down and across."""
    cells = np.zeros((CELL_CHANNELS, CELLS, CELLS), np.float32)
    along = np.linspace(-1, 1, CELLS, dtype=np.float32)
    cells[4 * INPUTS], cells[4 * INPUTS + 1] = along[:, None], along[None]
    return cells


@kernel()
def _pixel_unshuffle(crop: Image, opening: Array, displacement: Array, cells: Array) -> None:
    """Scale the channels of a crop, 2 x 2 px to a cell, into the first 4 INPUTS channels of cells (CELL_CHANNELS,
    CELLS, CELLS), in place; arguments as for `pixel_unshuffle_inputs`."""
    level, unit, one = np.float32(2 / 255), np.float32(1 / DISPLACEMENT_UNIT_PX), np.float32(1)
    for down in range(2):
        for across in range(2):
            place = 2 * down + across
            for row in range(CELLS):
                y = 2 * row + down
                for column in range(CELLS):
                    x = 2 * column + across
                    for channel in range(3):
                        cells[4 * channel + place, row, column] = level * crop[y, x, channel] - one
                    cells[12 + place, row, column] = opening[y, x]
                    cells[16 + place, row, column] = unit * displacement[0, y, x]
                    cells[20 + place, row, column] = unit * displacement[1, y, x]


@kernel()
def _upsample_ratio(cells: Array) -> Array:
    """Pixel-shuffle luma and upsample the chroma of red and blue bilinearly: cells (6, CELLS, CELLS) to RGB (SIDE_PX,
    SIDE_PX, 3), twice the log ratio before it is limited, in units of MOST_LOG_RATIO."""
    ratio = np.empty((SIDE_PX, SIDE_PX, 3), np.float32)
    scale, near, far, half = np.float32(2 / MOST_LOG_RATIO), np.float32(0.75), np.float32(0.25), np.float32(0.5)
    for y in range(SIDE_PX):
        row = y // 2
        other_row = min(max(row - 1 + 2 * (y % 2), 0), CELLS - 1)
        for x in range(SIDE_PX):
            column = x // 2
            other = min(max(column - 1 + 2 * (x % 2), 0), CELLS - 1)
            luma = cells[2 * (y % 2) + x % 2, row, column]
            red = near * (near * cells[4, row, column] + far * cells[4, row, other]) + far * (
                near * cells[4, other_row, column] + far * cells[4, other_row, other]
            )
            blue = near * (near * cells[5, row, column] + far * cells[5, row, other]) + far * (
                near * cells[5, other_row, column] + far * cells[5, other_row, other]
            )
            ratio[y, x, 0] = scale * (luma + red)
            ratio[y, x, 1] = scale * (luma - half * (red + blue))
            ratio[y, x, 2] = scale * (luma + blue)
    return ratio


@kernel()
def _limit(exponential: Array, opening: Array, taper: Array, still_share: float) -> Array:
    """Limit a ratio, given as exp(2 ratio), softly by tanh; fade it out along the border and in the opening."""
    ratio = np.empty((SIDE_PX, SIDE_PX, 3), np.float32)
    one, two, most, last = np.float32(1), np.float32(2), np.float32(MOST_LIGHTER), SIDE_PX - 1
    for y in range(SIDE_PX):
        for x in range(SIDE_PX):
            inside = np.float32(0)
            for row in range(max(y - 1, 0), min(y + 1, last) + 1):
                for column in range(max(x - 1, 0), min(x + 1, last) + 1):
                    inside = max(inside, opening[row, column])
            share, outside = np.float32(MOST_LOG_RATIO * still_share * taper[y, x]), one - inside
            for channel in range(3):
                soft = one - two / (exponential[y, x, channel] + one)
                ratio[y, x, channel] = min(share * soft, most) * outside
    return ratio
