"""Warp the source image to one frame by its backward flow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.composite import composite, soften_edges
from kdtalker.renderers.mesh.dirty_tiles import Box
from kdtalker.renderers.mesh.pose import PosedFrame
from kdtalker.renderers.mesh.raster import Spans, all_columns, backward_flow, reset_flow
from kdtalker.renderers.mesh.source import MeshSource

MOVED_PX = 1.5  # displacement from which on the unmoved picture is not blended in
STILL_PX = 0.02  # pixels that move less are copied from the source image
SOFTENED_SHARE = 1 / 8  # of the pixels, at most, are antialiased along occlusion edges


@dataclass(frozen=True)
class WarpBuffers:
    """Hold the buffers of a frame for reuse: flow (2, S, S) px back to the source image, depth (S, S), and places
    (N, 2) and colours (N, 3) of pixels along occlusion edges."""

    flow: Array
    depth: Array
    places: NDArray[np.int32]
    colours: Image

    @staticmethod
    def of(side: int) -> WarpBuffers:
        """Allocate buffers for frames of (side, side) px."""
        flow, depth = (np.empty((*several, side, side), np.float32) for several in ((2,), ()))
        most = round(side * side * SOFTENED_SHARE)
        return WarpBuffers(flow, depth, np.empty((most, 2), np.int32), np.empty((most, 3), np.uint8))


def find_columns(source: MeshSource, posed: PosedFrame, crop: Box) -> Spans:
    """Find the columns of each row in which a frame may differ from the source image, or whose flow is wanted: that of
    the face and of a crop, given by two corners (2,) px."""
    moved = float(np.abs(posed.points[:, :2] - posed.origin).max()) * np.sqrt(2)
    face = posed.points[: len(source.landmarks), :2]
    return source.dirty_tiles.columns(moved, (face.min(0) - 1, face.max(0) + 1), crop)


def compute_flow(source: MeshSource, posed: PosedFrame, columns: Spans, buffers: WarpBuffers) -> None:
    """Rasterise the backward flow of a frame into the buffers' flow and depth, in some columns of each row."""
    reset_flow(buffers.flow, buffers.depth, columns)
    source.lids.move_eyeballs(posed.lids, buffers.flow, STILL_PX, posed.iris)
    backward_flow(posed.points, posed.origin, source.triangles, buffers.flow, buffers.depth, columns)


def warp_picture(source: MeshSource, posed: PosedFrame, columns: Spans, buffers: WarpBuffers) -> Image:
    """Warp the source image by the buffers' flow and composite it over the background: (S, S, 3)."""
    frame, flow = source.picture.copy(), buffers.flow
    composite(source.samples, source.person, source.background, flow, columns, frame, STILL_PX, MOVED_PX)
    share = source.mirrored.share(posed.turn_deg) if source.mirrored else 0.0
    if source.mirrored and share:
        source.mirrored.blend(posed.vertices, share, buffers.depth, source.background, frame)
    soften_edges(frame, flow, columns, buffers.places, buffers.colours)
    return frame


def warp_matte(source: MeshSource, posed: PosedFrame, matte: Array) -> Array:
    """Warp an alpha matte (S, S) 0..1 by the flow of a frame."""
    buffers = WarpBuffers.of(len(matte))
    compute_flow(source, posed, all_columns(len(matte)), buffers)
    warped = cv2.remap(matte, buffers.flow[0], buffers.flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)
