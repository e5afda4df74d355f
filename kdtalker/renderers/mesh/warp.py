"""Compute the backward flow of one frame and warp the source image by it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.renderers.mesh.geometry import to_pixels, to_square, unpose
from kdtalker.renderers.mesh.head.breathing import breath_shift
from kdtalker.renderers.mesh.head.depth import widen_outline
from kdtalker.renderers.mesh.head.pose_limits import iris_shift
from kdtalker.renderers.mesh.raster import backward_flow, composite, find_moving_tiles, reset_flow, soften_edges
from kdtalker.renderers.mesh.source import MeshSource
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP

BORDER_TURN_DEG = 5.0  # turn of the head at which textures at the face's border are sampled from inside the person
MOVED_PX = 1.5  # displacement from which on the unmoved picture is not blended in
STILL_PX = 0.02  # pixels that move less are copied from the source image
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
    """Rasterise the backward flow of a frame (T = 1) with mesh (468, 3) px, lids closed by `Lids.close`, into the
    buffers' flow and depth."""
    texture = source.landmarks.copy()
    source.lips.move_texture(texture, source.lips.closing(motion))
    texture[:, :2] += _border_visibility(source, motion) * (source.texture - source.landmarks)[:, :2]
    rings, shift = _pose_rings(source, motion, vertices), iris_shift(motion, len(source.picture))[0]
    reset_flow(buffers.flow, buffers.depth)
    source.lids.move_eyeballs(vertices, buffers.flow, STILL_PX, shift)
    points = np.concatenate([vertices, rings]).astype(np.float32)
    origin = np.concatenate([texture, source.rings])[:, :2].astype(np.float32)
    backward_flow(points, origin, source.triangles, buffers.flow, buffers.depth)


def warp_picture(source: MeshSource, motion: Motion, vertices: Array, buffers: WarpBuffers) -> Image:
    """Warp the source image by the buffers' flow and composite it over the background: (S, S, 3), a frame (T = 1) with
    mesh (468, 3) px."""
    side, flow = len(source.picture), buffers.flow
    cv2.remap(source.person, flow[0], flow[1], cv2.INTER_LINEAR, dst=buffers.alpha, borderMode=cv2.BORDER_REPLICATE)
    _warp_tiles(source, buffers)
    frame = np.empty_like(source.picture)
    composite(buffers.warped, buffers.alpha, source.picture, source.background, flow, frame, STILL_PX, MOVED_PX)
    _blend_mirrored(source, motion, vertices, buffers, frame)
    soften_edges(frame, flow, np.empty((side * side // 8, 2), np.int32), np.empty((side * side // 8, 3), np.uint8))
    return frame


def warp_matte(matte: Array, buffers: WarpBuffers) -> Array:
    """Warp an alpha matte (S, S) 0..1 by the buffers' flow."""
    warped = cv2.remap(matte, buffers.flow[0], buffers.flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def separate_lips(vertices: Array, source: Array) -> Array:
    """Resolve collisions of the inner lips of a mesh (468, 3) px: lips that have crossed by more than the landmarks of
    the source (468, 3) px meet half-way."""
    resolved = vertices.copy()
    upper, lower = list(INNER_UPPER_LIP[1:-1]), list(INNER_LOWER_LIP[1:-1])
    own = np.maximum(source[upper, 1] - source[lower, 1], 0)
    crossed = np.maximum(resolved[upper, 1] - resolved[lower, 1] - own, 0) / 2
    resolved[upper, 1] -= crossed
    resolved[lower, 1] += crossed
    return resolved


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
    rings[:, :2] += side / 2 * widen_outline(source.widening_weight, motion, source.rest)
    return rings + breath_shift(source, motion)


def _pose_rigid(source: MeshSource, motion: Motion, points: list[int]) -> Array:
    """Pose landmarks of the source image as a rigid head: (points, 3) px."""
    rest, side = source.rest, len(source.picture)
    in_square = to_square(source.landmarks[points], 0, 0, side)
    in_head = unpose(in_square, rest)
    return to_pixels(motion.scale[0] * (in_head @ rotation_matrix(motion.pose)[0]) + motion.shift[0], side)


def _blend_mirrored(source: MeshSource, motion: Motion, vertices: Array, buffers: WarpBuffers, frame: Image) -> None:
    """Blend the mirrored near side over the far side of the face, as far as it is turned into view."""
    share = source.mirrored.share(float(motion.pose[0, 0] - source.rest.pose[0, 0])) if source.mirrored else 0.0
    if source.mirrored and share:
        source.mirrored.blend(vertices, share, buffers.depth, source.background, frame)


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
