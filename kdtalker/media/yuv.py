"""Convert RGB frames to YCbCr 4:2:0 (BT.709, limited range) where they differ from the frame before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Image
from kdtalker.core.compiled import Number, index, kernel, single

Bytes = NDArray[np.uint8]  # (N,)

BLOCK_PX = 64  # width of the blocks, two rows high, that are compared and converted

_RED, _GREEN, _BLUE = 0.2126, 0.7152, 0.0722  # luma of linear combinations, Rec. ITU-R BT.709-6, item 3.2


def _coefficients(*values: float) -> tuple[Number, ...]:
    return tuple(map(single, values))


# Coefficients of red, green and blue, and what is added before the fraction is cut off: for luma 16..235, and for the
# two colour differences 16..240 from the sums of four pixels.
_Y = _coefficients(*(219 / 255 * value for value in (_RED, _GREEN, _BLUE)), 16.5)
_CB = _coefficients(*(224 / 255 * value / (8 - 8 * _BLUE) for value in (-_RED, -_GREEN, 1 - _BLUE)), 128.5)
_CR = _coefficients(*(224 / 255 * value / (8 - 8 * _RED) for value in (1 - _RED, -_GREEN, -_BLUE)), 128.5)
_ZERO, _ONE, _TWO, _THREE, _SIX = map(index, (0, 1, 2, 3, 6))


class YUVPlanes:
    """Hold the planes of the last frame, as ffmpeg's yuv420p: luma (h, w), then the colour differences (h / 2, w / 2),
    each the mean of four pixels, in one row of bytes. Sides are even."""

    def __init__(self, height: int, width: int) -> None:
        """Start with planes of no frame."""
        self._height, self._width = height, width
        self._planes: Bytes = np.empty(height * width * 3 // 2, np.uint8)
        self._last: Bytes = np.empty(3 * height * width, np.uint8)
        self._is_empty = True
        self.converted = 0

    def update(self, frame: Image) -> Bytes:
        """Convert a frame (h, w, 3), where it differs from the last one, and return the planes, which the next call
        changes; `converted` counts the blocks."""
        rows = np.ascontiguousarray(frame).reshape(-1)
        self.converted = _convert(rows, self._last, self._planes, self._height, self._width, self._is_empty)
        self._is_empty = False
        return self._planes


@kernel()
def _convert(frame: Bytes, last: Bytes, planes: Bytes, height: int, width: int, everything: bool) -> int:  # noqa: PLR0917
    """Convert the blocks of a frame (3 h w,) that differ from the last one, and keep them in that."""
    size, step, count = height * width, 3 * width, 0
    for top in range(0, height, 2):
        for left in range(0, width, BLOCK_PX):
            pixels = min(BLOCK_PX, width - left)
            upper = 3 * (top * width + left)
            lower = upper + step
            if not (everything or _differ(frame, last, upper, 3 * pixels) or _differ(frame, last, lower, 3 * pixels)):
                continue
            _copy(frame, last, upper, 3 * pixels)
            _copy(frame, last, lower, 3 * pixels)
            _convert_luma(frame, upper, planes, top * width + left, pixels)
            _convert_luma(frame, lower, planes, (top + 1) * width + left, pixels)
            chroma = size + top // 2 * (width // 2) + left // 2
            _convert_chroma(frame, upper, lower, planes, chroma, chroma + size // 4, pixels // 2)
            count += 1
    return count


@kernel()
def _differ(one: Bytes, other: Bytes, start: int, count: int) -> bool:
    """Test whether `count` bytes from `start` on differ."""
    different = 0
    for at in range(np.uint64(start), np.uint64(start + count)):
        different += one[at] != other[at]
    return different > 0


@kernel()
def _copy(source: Bytes, target: Bytes, start: int, count: int) -> None:
    """Copy `count` bytes from `start` on."""
    for at in range(np.uint64(start), np.uint64(start + count)):
        target[at] = source[at]


@kernel(fastmath=True)
def _convert_luma(frame: Bytes, start: int, planes: Bytes, to: int, count: int) -> None:
    """Convert `count` pixels of a frame from byte `start` on to luma, from byte `to` of the planes on."""
    first, place = np.uint64(start), np.uint64(to)
    for x in range(_ZERO, np.uint64(count)):
        at = first + _THREE * x
        red, green, blue = np.float32(frame[at]), np.float32(frame[at + _ONE]), np.float32(frame[at + _TWO])
        planes[place + x] = np.uint8(np.int32(_Y[0] * red + _Y[1] * green + _Y[2] * blue + _Y[3]))


@kernel(fastmath=True)
def _convert_chroma(  # noqa: PLR0917 (compiled code takes no keywords)
    frame: Bytes, upper: int, lower: int, planes: Bytes, to_cb: int, to_cr: int, count: int
) -> None:
    """Convert `count` squares of four pixels of a frame, in two rows from bytes upper and lower on, to the two colour
    differences, from bytes to_cb and to_cr of the planes on."""
    cb, cr, above, below = np.uint64(to_cb), np.uint64(to_cr), np.uint64(upper), np.uint64(lower)
    for x in range(_ZERO, np.uint64(count)):
        at, under = above + _SIX * x, below + _SIX * x
        red = _sum_of_four(frame, at, under)
        green = _sum_of_four(frame, at + _ONE, under + _ONE)
        blue = _sum_of_four(frame, at + _TWO, under + _TWO)
        planes[cb + x] = np.uint8(np.int32(_CB[0] * red + _CB[1] * green + _CB[2] * blue + _CB[3]))
        planes[cr + x] = np.uint8(np.int32(_CR[0] * red + _CR[1] * green + _CR[2] * blue + _CR[3]))


@kernel(fastmath=True)
def _sum_of_four(frame: Bytes, upper: Number, lower: Number) -> Number:
    """Sum a channel of a square of four pixels, whose left ones are at bytes upper and lower."""
    right = upper + _THREE
    total = np.float32(frame[upper]) + np.float32(frame[right])
    right = lower + _THREE
    return total + np.float32(frame[lower]) + np.float32(frame[right])
