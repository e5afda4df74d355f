"""Rasterise triangles to backward flow in loops over pixels, compiled by numba.

All functions draw only the columns of each row that they are told: what follows the face costs no more in a large
picture than in a small one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.compiled import kernel

Spans = NDArray[np.int32]  # (S, 2), the first column of each row that is drawn, and the one after the last

FAR = np.float32(1e30)  # depth of the background; fastmath assumes that infinities do not occur
_EDGE = 1e-4  # tolerance in barycentric units: pixels on shared edges belong to a triangle, so that no cracks appear


def all_columns(side: int) -> Spans:
    """Return the columns of a whole picture of (side, side) px."""
    return np.repeat(np.array([[0, side]], np.int32), side, axis=0)


@kernel(fastmath=True)
def reset_flow(flow: Array, depth: Array, columns: Spans) -> None:
    """Reset flow (2, S, S) px to the identity and the depth buffer (S, S) to the background, in place."""
    for y in range(len(depth)):
        row_x, row_y, row_z = flow[0, y], flow[1, y], depth[y]  # one after the other, as vectors
        first, end, height = np.uint64(max(columns[y, 0], 0)), np.uint64(max(columns[y, 1], 0)), np.float32(y)
        for x in range(first, end):
            row_x[x] = np.float32(np.int32(x))
        for x in range(first, end):
            row_y[x] = height
        for x in range(first, end):
            row_z[x] = FAR


@kernel(fastmath=True, error_model="numpy")
def backward_flow(  # noqa: PLR0917 (compiled code takes no keywords)
    target: Array, source: Array, triangles: NDArray[np.int32], flow: Array, depth: Array, columns: Spans
) -> None:
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
        leftmost = int(np.ceil(min(ax, bx, cx) - 1e-3))
        rightmost = int(np.floor(max(ax, bx, cx) + 1e-3))
        v_step, w_step = (cy - ay) / area, (ay - by) / area  # per pixel to the right
        z_step = v_step * (bz - az) + w_step * (cz - az)
        x_step = v_step * (source[b, 0] - source[a, 0]) + w_step * (source[c, 0] - source[a, 0])
        y_step = v_step * (source[b, 1] - source[a, 1]) + w_step * (source[c, 1] - source[a, 1])
        for y in range(top, bottom + 1):
            left, right = max(leftmost, columns[y, 0], 0), min(rightmost, columns[y, 1] - 1)
            if left > right:
                continue
            v = ((left - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
            w = ((bx - ax) * (y - ay) - (by - ay) * (left - ax)) / area
            first, last = _span(v, v_step, 0, right - left)
            first, last = _span(w, w_step, first, last)
            first, last = _span(1 - v - w, -v_step - w_step, first, last)
            z = np.float32(az + v * (bz - az) + w * (cz - az))
            place_x = np.float32(source[a, 0] + v * (source[b, 0] - source[a, 0]) + w * (source[c, 0] - source[a, 0]))
            place_y = np.float32(source[a, 1] + v * (source[b, 1] - source[a, 1]) + w * (source[c, 1] - source[a, 1]))
            row_x, row_y, row_z = flow[0, y], flow[1, y], depth[y]
            for along in range(first, last + 1):
                x, step = np.uint64(left + along), np.float32(along)
                here = z + step * z_step
                if here < row_z[x]:
                    row_z[x] = here
                    row_x[x] = place_x + step * x_step
                    row_y[x] = place_y + step * y_step


@kernel(fastmath=True)
def _span(start: float, step: float, first: int, last: int) -> tuple[int, int]:
    """Narrow the steps first..last of a scanline to those where start + step * n is inside a triangle's edge."""
    if abs(step) < 1e-9:
        return (first, last) if start >= -_EDGE else (1, 0)
    border = min(max((-_EDGE - start) / step, -1e6), 1e6)
    if step > 0:
        return max(first, int(np.ceil(border))), last
    return first, min(last, int(np.floor(border)))
