"""Rasterise and composite in loops over pixels, compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image

_FAR = np.float32(1e30)  # depth of the background; fastmath assumes that infinities do not occur
_EDGE = 1e-4  # tolerance in barycentric units: pixels on shared edges belong to a triangle, so that no cracks appear


@njit(cache=True, nogil=True, fastmath=True)
def reset_flow(flow: Array, depth: Array) -> None:
    """Reset flow (2, S, S) px to the identity and the depth buffer (S, S) to the background, in place."""
    side = flow.shape[1]
    for y in range(side):
        for x in range(side):
            flow[0, y, x], flow[1, y, x], depth[y, x] = x, y, _FAR


@njit(cache=True, nogil=True, fastmath=True)
def backward_flow(target: Array, source: Array, triangles: NDArray[np.int32], flow: Array, depth: Array) -> None:
    """Rasterise triangles (M, 3) of target vertices (N, 3; x, y, z in px) with depth test: each covered pixel of flow
    (2, S, S) gets its place in the source image by barycentric interpolation of source (N, 2) px. flow and the depth
    buffer (S, S; smaller z is nearer) are updated in place."""
    side = flow.shape[1]
    for index in range(len(triangles)):
        a, b, c = triangles[index]
        ax, ay, az = target[a]
        bx, by, bz = target[b]
        cx, cy, cz = target[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-6:
            continue
        top = max(int(np.ceil(min(ay, by, cy) - 1e-3)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) + 1e-3)), side - 1)
        left = max(int(np.ceil(min(ax, bx, cx) - 1e-3)), 0)
        right = min(int(np.floor(max(ax, bx, cx) + 1e-3)), side - 1)
        v_step, w_step = (cy - ay) / area, (ay - by) / area  # per pixel to the right
        for y in range(top, bottom + 1):
            v_start = ((left - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
            w_start = ((bx - ax) * (y - ay) - (by - ay) * (left - ax)) / area
            first, last = _span(v_start, v_step, 0, right - left)
            first, last = _span(w_start, w_step, first, last)
            first, last = _span(1 - v_start - w_start, -v_step - w_step, first, last)
            for along in range(first, last + 1):
                v, w, x = v_start + along * v_step, w_start + along * w_step, left + along
                u = 1 - v - w
                z = u * az + v * bz + w * cz
                if z < depth[y, x]:
                    depth[y, x] = z
                    flow[0, y, x] = u * source[a, 0] + v * source[b, 0] + w * source[c, 0]
                    flow[1, y, x] = u * source[a, 1] + v * source[b, 1] + w * source[c, 1]


@njit(cache=True, nogil=True, fastmath=True)
def _span(start: float, step: float, first: int, last: int) -> tuple[int, int]:
    """Narrow the steps first..last of a scanline to those where start + step * n is inside a triangle's edge."""
    if abs(step) < 1e-9:
        return (first, last) if start >= -_EDGE else (1, 0)
    border = min(max((-_EDGE - start) / step, -1e6), 1e6)
    if step > 0:
        return max(first, int(np.ceil(border))), last
    return first, min(last, int(np.floor(border)))


@njit(cache=True, nogil=True, fastmath=True)
def find_moving_tiles(flow: Array, alpha: Array, still_px: float, tile: int, moves: NDArray[np.bool_]) -> None:
    """Mark in moves (S / tile, S / tile), rounded up, the tiles with a pixel of the person, alpha (S, S) above 0, that
    flow (2, S, S) moves by still_px or more."""
    side = flow.shape[1]
    moves[:] = False
    for y in range(side):
        for x in range(side):
            if alpha[y, x] > 0 and max(abs(flow[0, y, x] - x), abs(flow[1, y, x] - y)) >= still_px:
                moves[y // tile, x // tile] = True


@njit(cache=True, nogil=True, fastmath=True)
def composite(  # noqa: PLR0917 (compiled code takes no keywords)
    warped: Image,
    alpha: Array,
    picture: Image,
    background: Image,
    flow: Array,
    frame: Image,
    still_px: float,
    moved_px: float,
) -> None:
    """Composite the warped person over the background into frame (S, S, 3), and the picture where nothing moves.

    alpha (S, S) 0..1 is the warped person mask; where it is 0, warped does not count. Pixels that move by less than
    still_px are copied from the picture; up to moved_px the picture is blended in."""
    side = flow.shape[1]
    for y in range(side):
        for x in range(side):
            moved = max(abs(flow[0, y, x] - x), abs(flow[1, y, x] - y))
            if moved < still_px:
                for channel in range(3):
                    frame[y, x, channel] = picture[y, x, channel]
                continue
            a = alpha[y, x]
            new = min(1, moved / moved_px)
            share = new + (1 - new) * a  # the person moves at once, the background fades in with the motion
            for channel in range(3):
                under = share * background[y, x, channel] + (1 - share) * picture[y, x, channel]
                frame[y, x, channel] = np.uint8(a * warped[y, x, channel] + (1 - a) * under + 0.5)


@njit(cache=True, nogil=True, fastmath=True)
def blend_texture(  # noqa: PLR0917 (compiled code takes no keywords)
    texture: Image,
    alpha: Array,
    weight: Array,
    share: float,
    flow: Array,
    nearest: Array,
    depth: Array,
    background: Image,
    frame: Image,
) -> None:
    """Blend a texture (S, S, 3) with alpha and weight (S, S) 0..1, the latter times share, sampled at flow (2, B, B),
    over the background (h, w, 3) into frame (h, w, 3), in place, where its depth `nearest` (B, B) is not behind
    `depth` (h, w); h and w are at most B."""
    height, width = depth.shape
    last = len(texture) - 3
    for y in range(height):
        for x in range(width):
            if nearest[y, x] > depth[y, x] or nearest[y, x] >= 0.9 * _FAR:
                continue
            left = min(max(int(np.floor(flow[0, y, x])), 1), last)
            top = min(max(int(np.floor(flow[1, y, x])), 1), last)
            right, down = flow[0, y, x] - left, flow[1, y, x] - top
            w = share * _bilinear(weight, top, left, down, right)
            if w <= 0:
                continue
            a = _bilinear(alpha, top, left, down, right)
            for channel in range(3):
                value = 0.0
                for dy in range(-1, 3):
                    for dx in range(-1, 3):
                        kernel = _catmull_rom(dy - down) * _catmull_rom(dx - right)
                        value += kernel * float(texture[top + dy, left + dx, channel])
                new = a * min(max(value, 0.0), 255.0) + (1 - a) * background[y, x, channel]
                frame[y, x, channel] = np.uint8(w * new + (1 - w) * frame[y, x, channel] + 0.5)


@njit(cache=True, nogil=True, fastmath=True)
def _bilinear(values: Array, top: int, left: int, down: float, right: float) -> float:
    """Interpolate values (S, S) linearly, `down` and `right` of a pixel."""
    above = (1 - right) * values[top, left] + right * values[top, left + 1]
    below = (1 - right) * values[top + 1, left] + right * values[top + 1, left + 1]
    return float((1 - down) * above + down * below)


@njit(cache=True, nogil=True, fastmath=True)
def _catmull_rom(distance: float) -> float:
    """Compute the kernel of Catmull-Rom interpolation at a distance in px."""
    x = abs(distance)
    if x < 1:
        return 1 + x * x * (1.5 * x - 2.5)
    return 2 + x * (-4 + x * (2.5 - 0.5 * x)) if x < 2 else 0.0


@njit(cache=True, nogil=True)
def soften_edges(frame: Image, flow: Array, places: NDArray[np.int32], colours: Image) -> None:
    """Antialias frame (S, S, 3) in place by a 3x3 binomial filter along occlusion edges, where flow (2, S, S) is
    discontinuous. places (N, 2) and colours (N, 3) are buffers for the pixels that change."""
    side = flow.shape[1]
    count = 0
    for y in range(1, side - 1):
        for x in range(1, side - 1):
            right = abs(flow[0, y, x + 1] - flow[0, y, x] - 1) + abs(flow[1, y, x + 1] - flow[1, y, x])
            left = abs(flow[0, y, x] - flow[0, y, x - 1] - 1) + abs(flow[1, y, x] - flow[1, y, x - 1])
            down = abs(flow[0, y + 1, x] - flow[0, y, x]) + abs(flow[1, y + 1, x] - flow[1, y, x] - 1)
            up = abs(flow[0, y, x] - flow[0, y - 1, x]) + abs(flow[1, y, x] - flow[1, y - 1, x] - 1)
            if max(right, left, down, up) < 3 or count == len(places):
                continue
            for channel in range(3):
                total = 8
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        total += (2 - abs(dy)) * (2 - abs(dx)) * frame[y + dy, x + dx, channel]
                colours[count, channel] = total >> 4
            places[count, 0], places[count, 1] = y, x
            count += 1
    for index in range(count):
        for channel in range(3):
            frame[places[index, 0], places[index, 1], channel] = colours[index, channel]
