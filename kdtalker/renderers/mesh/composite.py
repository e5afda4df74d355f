"""Sample and composite a frame in loops over pixels, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.core.compiled import Number, index, kernel, single
from kdtalker.renderers.mesh.bicubic import ACROSS, DOWN, INSIDE, OUTSIDE, PAD, STEPS, sample_bicubic
from kdtalker.renderers.mesh.raster import FAR, Spans

_ACROSS, _DOWN = ACROSS.ravel(), DOWN.ravel()
_sample: Any = sample_bicubic  # an intrinsic, whose first parameter is not passed
_JUMP_PX = single(3)  # difference in flow between neighbours from which on one of them hides something
_CHUNK = 16  # pixels that are tested for such a difference at once
_ZERO, _HALF, _ONE = map(single, (0, 0.5, 1))
_NEXT = index(1)


@kernel(fastmath=True)
def composite(  # noqa: PLR0917 (compiled code takes no keywords)
    texture: Image,
    person: Array,
    background: Image,
    flow: Array,
    columns: Spans,
    frame: Image,
    still_px: float,
    moved_px: float,
) -> None:
    """Warp the person by flow (2, S, S) and composite it over the background into frame (S, S, 3), a copy of the
    source image, in place.

    texture: the source image as `make_texture` makes it, flattened; person (S, S) 0..1, its mask in the source image.
    Pixels that move by less than still_px stay; up to moved_px the source image is blended in."""
    side = len(frame)
    still, ramp = np.float32(still_px), _ONE / np.float32(moved_px)
    for y in range(side):
        for x in range(max(columns[y, 0], 0), columns[y, 1]):
            u, v = flow[0, y, x], flow[1, y, x]
            moved = max(abs(u - np.float32(x)), abs(v - np.float32(y)))
            if moved < still:
                continue
            start, column, row = find_place(side, u, v)
            kind = texture[start + 3]
            new = min(_ONE, moved * ramp)  # the person moves at once, the background fades in with the motion
            if kind == INSIDE:
                red, green, blue = sample_texture(texture, side, start, column, row)
                set_pixel(frame, y, x, red, green, blue)
            elif kind == OUTSIDE:
                fade_in(background, frame, y, x, new)
            else:
                a = sample_linear(person, u, v)
                fade_in(background, frame, y, x, new + (_ONE - new) * a)
                red, green, blue = sample_texture(texture, side, start, column, row)
                blend_pixel(frame, y, x, red, green, blue, a)


@kernel(fastmath=True)
def fade_in(background: Image, frame: Image, y: int, x: int, share: Number) -> None:
    """Blend a pixel of the background (S, S, 3) into frame (S, S, 3), in place."""
    red, green, blue = background[y, x, 0], background[y, x, 1], background[y, x, 2]
    if red != frame[y, x, 0] or green != frame[y, x, 1] or blue != frame[y, x, 2]:
        blend_pixel(frame, y, x, red, green, blue, share)


@kernel(fastmath=True)
def blend_texture(  # noqa: PLR0917 (compiled code takes no keywords)
    texture: Image,
    alpha: Array,
    weight: Array,
    share: float,
    flow: Array,
    nearest: Array,
    behind: float,
    depth: Array,
    background: Image,
    frame: Image,
) -> None:
    """Blend a texture of `make_texture`, flattened, with alpha and weight (S, S) 0..1, the latter times share, sampled
    at flow (2, B, B), over the background (h, w, 3) into frame (h, w, 3), in place, where its depth `nearest` (B, B) is
    at most `behind` px behind `depth` (h, w); h and w are at most B."""
    height, width = depth.shape
    strength, tolerance = np.float32(share), np.float32(behind)
    for y in range(height):
        for x in range(width):
            if nearest[y, x] - tolerance > depth[y, x] or nearest[y, x] >= 0.9 * FAR:
                continue
            u, v = flow[0, y, x], flow[1, y, x]
            w = strength * sample_linear(weight, u, v)
            if w <= 0:
                continue
            a, side = sample_linear(alpha, u, v), len(alpha)
            start, column, row = find_place(side, u, v)
            red, green, blue = sample_texture(texture, side, start, column, row)
            ground = background[y, x]
            blend_pixel(
                frame, y, x,
                a * red + (_ONE - a) * ground[0], a * green + (_ONE - a) * ground[1], a * blue + (_ONE - a) * ground[2],
                w,
            )  # fmt: skip


@kernel(fastmath=True)
def blend_pixel(  # noqa: PLR0917 (compiled code takes no keywords)
    frame: Image, y: int, x: int, red: Number, green: Number, blue: Number, share: Number
) -> None:
    """Blend a colour, 0..255, into a pixel of frame (h, w, 3) in place, with a share 0..1."""
    rest = _ONE - share
    set_pixel(
        frame, y, x,
        share * np.float32(red) + rest * np.float32(frame[y, x, 0]),
        share * np.float32(green) + rest * np.float32(frame[y, x, 1]),
        share * np.float32(blue) + rest * np.float32(frame[y, x, 2]),
    )  # fmt: skip


@kernel(fastmath=True)
def set_pixel(frame: Image, y: int, x: int, red: Number, green: Number, blue: Number) -> None:  # noqa: PLR0917
    """Round a colour and set a pixel of frame (h, w, 3) to it, in place."""
    frame[y, x, 0] = np.uint8(int(red + _HALF))
    frame[y, x, 1] = np.uint8(int(green + _HALF))
    frame[y, x, 2] = np.uint8(int(blue + _HALF))


@kernel(fastmath=True)
def soften_edges(frame: Image, flow: Array, columns: Spans, places: NDArray[np.int32], colours: Image) -> None:
    """Antialias frame (S, S, 3) in place by a 3x3 binomial filter along occlusion edges, where flow (2, S, S) is
    discontinuous. places (N, 2) and colours (N, 3) are buffers for the pixels that change."""
    side, count = len(frame), 0
    for y in range(1, side - 1):
        rows = flow[0, y - 1], flow[0, y], flow[0, y + 1], flow[1, y - 1], flow[1, y], flow[1, y + 1]
        first = max(columns[y, 0] + 1, columns[y - 1, 0], columns[y + 1, 0], 1)
        last = min(columns[y, 1] - 1, columns[y - 1, 1], columns[y + 1, 1])
        for start in range(first, last, _CHUNK):
            end = min(start + _CHUNK, last)
            jumps = 0
            for x in range(np.uint64(start), np.uint64(end)):
                jumps += _is_jump(rows, x)
            if not jumps:
                continue
            for x in range(start, end):
                if not _is_jump(rows, np.uint64(x)) or count == len(places):
                    continue
                for channel in range(3):
                    total = 8
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            total += (2 - abs(dy)) * (2 - abs(dx)) * frame[y + dy, x + dx, channel]
                    colours[count, channel] = total >> 4
                places[count, 0], places[count, 1] = y, x
                count += 1
    for number in range(count):
        for channel in range(3):
            frame[places[number, 0], places[number, 1], channel] = colours[number, channel]


@kernel(fastmath=True, inline="always")
def _is_jump(rows: tuple[Array, ...], x: Number) -> Number:
    """Test whether the displacement differs by _JUMP_PX between a pixel and one of its four neighbours. rows (S,) of
    the flow's two components, each above, here and below."""
    u_above, u, u_below, v_above, v, v_below = rows
    right = abs(u[x + _NEXT] - u[x] - _ONE) + abs(v[x + _NEXT] - v[x])
    left = abs(u[x] - u[x - _NEXT] - _ONE) + abs(v[x] - v[x - _NEXT])
    down = abs(u_below[x] - u[x]) + abs(v_below[x] - v[x] - _ONE)
    up = abs(u[x] - u_above[x]) + abs(v[x] - v_above[x] - _ONE)
    return (right >= _JUMP_PX) | (left >= _JUMP_PX) | (down >= _JUMP_PX) | (up >= _JUMP_PX)


@kernel(fastmath=True)
def sample_linear(values: Array, x: Number, y: Number) -> Number:
    """Interpolate values (S, S) linearly at (x, y); beyond their border they are repeated."""
    last = np.float32(len(values) - 1)
    x, y = min(max(x, _ZERO), last), min(max(y, _ZERO), last)
    left, top = max(min(int(x), len(values) - 2), 0), max(min(int(y), len(values) - 2), 0)
    right, down = x - np.float32(left), y - np.float32(top)
    above = values[top, left] + right * (values[top, left + 1] - values[top, left])
    below = values[top + 1, left] + right * (values[top + 1, left + 1] - values[top + 1, left])
    return above + down * (below - above)


@kernel(fastmath=True)
def find_place(side: int, x: Number, y: Number) -> tuple[Number, Number, Number]:
    """Find the pixel of a texture of a picture (side, side, 3) that is upper left of (x, y), as an index, and how far
    (x, y) is to the right of it and below, in 1 / STEPS px."""
    low, high, pad, steps = _ZERO - _ONE, np.float32(side), np.float32(PAD), np.float32(STEPS)
    column = np.uint32(int((min(max(x, low), high) + pad) * steps + _HALF))
    row = np.uint32(int((min(max(y, low), high) + pad) * steps + _HALF))
    start = 4 * ((row // STEPS) * (side + 2 * PAD) + column // STEPS)
    return start, column % STEPS, row % STEPS


@kernel(fastmath=True)
def sample_texture(texture: Image, side: int, start: Number, column: Number, row: Number) -> Any:
    """Sample a texture of a picture (side, side, 3) at a place of `find_place`: RGB 0..255."""
    step = 4 * (side + 2 * PAD)
    return _sample(texture, start - step - 4, step, _ACROSS, column, _DOWN, row)
