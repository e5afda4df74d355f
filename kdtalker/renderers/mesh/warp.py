"""Compute the backward flow of one frame and warp the source image by it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.renderers.mesh.geometry import to_pixels, to_square
from kdtalker.renderers.mesh.pose_limits import iris_shift
from kdtalker.renderers.mesh.raster import backward_flow, composite, find_moving_tiles, reset_flow, soften_edges
from kdtalker.renderers.mesh.source import RING_POSITIONS, MeshSource
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP

BORDER_TURN_DEG = 5.0  # turn of the head at which textures at the face's border are sampled from inside the person
MOVED_PX = 1.5  # displacement from which on the unmoved picture is not blended in
STILL_PX = 0.02  # pixels that move less are copied from the source image
BREATH_RISE = 0.022  # of the shoulders at the height of a breath, in outer-eye distances
BREATH_RING_WEIGHT = (0.0, 0.25, 0.7, 1.0, 0.0)  # of each ring below the face; the border of the square stays
BREATH_BELOW = (0.3, 0.8)  # cosine to the face's downward axis between which the weight goes from 0 to 1
TILES = 16  # tiles a side; those in which the person does not move are not warped


@dataclass(frozen=True)
class WarpBuffers:
    """Hold the buffers of a frame for reuse: flow (2, S, S) px back to the source image, depth (S, S), alpha (S, S)
    0..1 of the person and warped (S, S, 3)."""

    flow: Array
    depth: Array
    alpha: Array
    warped: Image

    @staticmethod
    def of(side: int) -> WarpBuffers:
        """Allocate buffers for frames of (side, side) px."""
        flow, depth, alpha = (np.empty((*several, side, side), np.float32) for several in ((2,), (), ()))
        return WarpBuffers(flow, depth, alpha, np.empty((side, side, 3), np.uint8))


def compute_flow(source: MeshSource, motion: Motion, vertices: Array, buffers: WarpBuffers) -> None:
    """Rasterise the backward flow of a frame (T = 1) with mesh (468, 3) px into the buffers' flow and depth."""
    target, texture = source.lids.close(vertices)
    texture[:, :2] += _border_visibility(source, motion) * (source.texture - source.landmarks)[:, :2]
    rings, shift = _pose_rings(source, motion, target), iris_shift(motion, len(source.picture))[0]
    reset_flow(buffers.flow, buffers.depth)
    source.lids.move_eyeballs(target, buffers.flow, STILL_PX, shift)
    points = np.concatenate([target, rings]).astype(np.float32)
    origin = np.concatenate([texture, source.rings])[:, :2].astype(np.float32)
    backward_flow(points, origin, source.triangles, buffers.flow, buffers.depth)


def warp_picture(source: MeshSource, buffers: WarpBuffers) -> Image:
    """Warp the source image by the buffers' flow and composite it over the background: (S, S, 3)."""
    side, flow = len(source.picture), buffers.flow
    cv2.remap(source.person, flow[0], flow[1], cv2.INTER_LINEAR, dst=buffers.alpha, borderMode=cv2.BORDER_REPLICATE)
    _warp_tiles(source, buffers)
    frame = np.empty_like(source.picture)
    composite(buffers.warped, buffers.alpha, source.picture, source.background, flow, frame, STILL_PX, MOVED_PX)
    soften_edges(frame, flow, np.empty((side * side // 8, 2), np.int32), np.empty((side * side // 8, 3), np.uint8))
    return frame


def warp_matte(matte: Array, buffers: WarpBuffers) -> Array:
    """Warp an alpha matte (S, S) 0..1 by the buffers' flow."""
    warped = cv2.remap(matte, buffers.flow[0], buffers.flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def separate_lips(vertices: Array) -> Array:
    """Resolve collisions of the inner lips of a mesh (468, 3) px: lips that have crossed meet half-way."""
    resolved = vertices.copy()
    upper, lower = list(INNER_UPPER_LIP[1:-1]), list(INNER_LOWER_LIP[1:-1])
    crossed = np.maximum(resolved[upper, 1] - resolved[lower, 1], 0) / 2
    resolved[upper, 1] -= crossed
    resolved[lower, 1] += crossed
    return resolved


def breath_shift(source: MeshSource, motion: Motion) -> Array:
    """Compute the shift (R, 3) px of the ring vertices in one frame (T = 1)."""
    points = source.landmarks
    down = points[152, :2] - points[10, :2]
    along = source.rings[:, :2] - points[list(FACE_OVAL), :2].mean(0)
    cosine = along @ down / (np.linalg.norm(along, axis=1) * np.linalg.norm(down))
    weight = np.repeat(BREATH_RING_WEIGHT, len(source.rings) // len(RING_POSITIONS))
    weight = weight * smoothstep((cosine - BREATH_BELOW[0]) / (BREATH_BELOW[1] - BREATH_BELOW[0]))
    unit = np.linalg.norm(points[33, :2] - points[263, :2])
    up = np.append(-down / np.linalg.norm(down), 0)
    return np.asarray(BREATH_RISE * unit * float(motion.breath[0, 0]) * weight[:, None] * up, np.float32)


def _pose_rings(source: MeshSource, motion: Motion, vertices: Array) -> Array:
    """Pose the ring vertices (R, 3) px of one frame: they follow the head by their pose weights, and the non-rigid
    motion of the face's oval by their jaw weights."""
    side = len(source.picture)
    turned = source.rings_in_head @ rotation_matrix(motion.pose)[0]
    rigid = to_pixels(motion.scale[0] * turned + motion.shift[0], side)
    oval = list(FACE_OVAL)
    non_rigid = np.tile(vertices[oval] - _pose_rigid(source, motion, oval), (len(source.rings) // len(oval), 1))
    rings: Array = (
        source.rings + source.pose_weight[:, None] * (rigid - source.rings) + source.jaw_weight[:, None] * non_rigid
    )
    return rings + breath_shift(source, motion)


def _pose_rigid(source: MeshSource, motion: Motion, points: list[int]) -> Array:
    """Pose landmarks of the source image as a rigid head: (points, 3) px."""
    rest, side = source.rest, len(source.picture)
    in_square = to_square(source.landmarks[points], 0, 0, side)
    in_head = (in_square - rest.shift[0]) / rest.scale[0] @ rotation_matrix(rest.pose)[0].T
    return to_pixels(motion.scale[0] * (in_head @ rotation_matrix(motion.pose)[0]) + motion.shift[0], side)


def _border_visibility(source: MeshSource, motion: Motion) -> float:
    """Ramp from 0 in the source's pose to 1 where the head is turned by BORDER_TURN_DEG."""
    yaw, pitch, _ = motion.pose[0] - source.rest.pose[0]
    return float(np.clip(np.hypot(yaw, pitch) / BORDER_TURN_DEG, 0, 1))


def _warp_tiles(source: MeshSource, buffers: WarpBuffers) -> None:
    """Warp the source image in the tiles where the person moves, and between them in a row. Bicubic sampling is the
    most expensive step, and most pixels are background and shoulders."""
    tile = -(-len(buffers.alpha) // TILES)
    moves = np.empty((TILES, TILES), np.bool_)
    find_moving_tiles(buffers.flow, buffers.alpha, STILL_PX, tile, moves)
    for row in np.flatnonzero(moves.any(1)):
        columns = np.flatnonzero(moves[row])
        area = np.s_[row * tile : (row + 1) * tile, columns[0] * tile : (columns[-1] + 1) * tile]
        flow = buffers.flow[0][area], buffers.flow[1][area]
        buffers.warped[area] = cv2.remap(source.picture, *flow, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
