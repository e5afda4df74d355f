"""Symmetric prior: texture the far side of a face in three-quarter view by its near side, mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.renderers.mesh.bicubic import make_texture
from kdtalker.renderers.mesh.composite import blend_texture
from kdtalker.renderers.mesh.geometry import mirror_landmarks, vertex_normals
from kdtalker.renderers.mesh.raster import all_columns, backward_flow, reset_flow
from kdtalker.renderers.mesh.topology import FACE_OVAL, SKIN

# Cosines between a surface's normal and the view: the mirrored side begins to replace what is seen by less than the
# first, and has replaced it at the second, where it is itself seen better by BETTER_COSINE.
SEEN_COSINES = (0.35, 0.1)
BETTER_COSINE = 0.35
FRONTAL_YAW_DEG = 5.0  # of a source that shows both sides about equally well: there is no mirrored side
OCCLUSION = 0.03  # depth behind a nearer surface, as a share of the side, from which on a point is hidden
REVEAL_DEG = 12.0  # turn towards the far side at which the mirrored side has replaced it
BORDER_INSET = 0.04  # share of its way to the centre by which the face's border is sampled further inside
COARSE_PX = 64  # side of the map on which the colours of both sides are matched
COLOUR_BLUR = 0.02  # sigma of the Gaussian after which colours are compared, as a share of the side
COLOUR_SIGMA = 0.06  # of the Gaussian over which their differences are averaged, as a share of the side
RELIABLE_COSINE = 0.35  # between normal and view, from which on a colour has its full weight in the comparison
LOG_OFFSET = 8  # levels added before the logarithm of a colour
# Mean log difference of colours, beyond what light explains, from which on and at which the far side is taken for
# something else than skin, such as hair or a hand, and kept.
STRANGE_COLOURS = (0.25, 0.5)


@dataclass(frozen=True)
class MirroredSide:
    """Hold the texture for the far side of a face: the mirrored source image with the far side's light.

    texture, as `make_texture` makes it; person and weight (S, S) 0..1, its alpha and where it replaces the far side;
    origin (468, 2) px, the landmarks in it; triangles (M, 3) of the far side; direction, 1 or -1: of the yaw that
    brings it into view."""

    texture: Image
    person: Array
    weight: Array
    origin: Array
    triangles: NDArray[np.int32]
    direction: int

    def share(self, turn_deg: float) -> float:
        """Ramp from 0 in the source's pose to 1 where its yaw has changed by REVEAL_DEG towards the far side."""
        return float(smoothstep(self.direction * turn_deg / REVEAL_DEG))

    def blend(self, vertices: Array, share: float, depth: Array, background: Image, frame: Image) -> None:
        """Blend the mirrored side into a frame (S, S, 3) in place, weighted by `share`, where the mesh (468, 3) px is
        visible by the frame's depth buffer (S, S). background (S, S, 3) is seen where the texture is transparent."""
        corners = vertices[self.triangles.ravel(), :2]
        low, high = (np.clip(corner, 0, len(frame)) for corner in (corners.min(0), corners.max(0) + 2))
        left, top = low.astype(int)
        box = int((high.astype(int) - (left, top)).max())
        if (high.astype(int) <= (left, top)).any():
            return
        flow, own_depth = np.empty((2, box, box), np.float32), np.empty((box, box), np.float32)
        columns = all_columns(box)
        reset_flow(flow, own_depth, columns)
        moved = (vertices - np.array([left, top, 0])).astype(np.float32)
        backward_flow(moved, self.origin, self.triangles, flow, own_depth, columns)
        blend_texture(
            self.texture,
            self.person,
            self.weight,
            share,
            flow,
            own_depth,
            OCCLUSION * len(frame),
            depth[top : top + box, left : left + box],
            background[top : top + box, left : left + box],
            frame[top : top + box, left : left + box],
        )


def mirror_side(
    picture: Image, person: Array, *, landmarks: Array, texture: Array, rest: Motion, mean: Array
) -> MirroredSide | None:
    """Build the mirrored side of a source image (S, S, 3) with person mask (S, S); None where it shows both sides of
    the face equally well.

    landmarks (468, 3) px; texture (468, 3) px, the same moved onto the person; rest (T = 1) the source's motion;
    mean (468, 3) the symmetric mean face."""
    if abs(rest.pose[0, 0]) < FRONTAL_YAW_DEG:
        return None
    side, mirror, normals = len(picture), mirror_landmarks(mean), vertex_normals(mean)
    hidden = _find_hidden(landmarks, side)
    facing = np.where(hidden, 0, -(normals @ rotation_matrix(rest.pose)[0])[:, 2])
    high, low = SEEN_COSINES
    unseen = smoothstep((facing[mirror] - facing) / BETTER_COSINE) * smoothstep((high - facing) / (high - low))
    inside, oval = texture[:, :2].copy(), list(FACE_OVAL)
    inside[oval] += BORDER_INSET * (inside[oval].mean(0) - inside[oval])
    origin = np.stack([side - 1 - inside[mirror, 0], inside[mirror, 1]], 1).astype(np.float32)
    flipped, flipped_person = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(person[:, ::-1])
    seen = smoothstep(facing / RELIABLE_COSINE) * smoothstep(facing[mirror] / RELIABLE_COSINE) * ~hidden
    matched, strange = _match_colours(flipped, origin, picture, inside, seen)
    start, end = STRANGE_COLOURS
    unseen *= np.where(hidden, 1, 1 - smoothstep((strange - start) / (end - start)))
    triangles = np.array(SKIN, np.int32)
    triangles = triangles[unseen[triangles].max(1) > 0]
    if not len(triangles):
        return None
    return MirroredSide(
        texture=make_texture(matched, flipped_person),
        person=flipped_person,
        weight=_rasterise(origin, unseen, triangles, side),
        origin=origin,
        triangles=triangles,
        direction=-1 if rest.pose[0, 0] > 0 else 1,
    )


def _find_hidden(landmarks: Array, side: int) -> NDArray[np.bool_]:
    """Find the landmarks (468, 3) px that a nearer part of the face hides."""
    flow, depth = np.empty((2, side, side), np.float32), np.empty((side, side), np.float32)
    reset_flow(flow, depth, all_columns(side))
    points, triangles = landmarks.astype(np.float32), np.array(SKIN, np.int32)
    backward_flow(points, np.ascontiguousarray(points[:, :2]), triangles, flow, depth, all_columns(side))
    columns, rows = np.clip(np.round(points[:, :2]).astype(int), 0, side - 1).T
    return np.asarray(points[:, 2] > depth[rows, columns] + OCCLUSION * side, np.bool_)


def _rasterise(points: Array, values: Array, triangles: NDArray[np.int32], side: int) -> Array:
    """Rasterise vertex values (V,) at points (V, 2) px to a map (side, side), 0 elsewhere, slightly blurred."""
    flow, depth = np.empty((2, side, side), np.float32), np.empty((side, side), np.float32)
    reset_flow(flow, depth, all_columns(side))
    flow[:] = 0
    flat = np.c_[points, np.zeros(len(points))].astype(np.float32)
    pairs = np.repeat(values[:, None], 2, axis=1).astype(np.float32)
    backward_flow(flat, pairs, triangles, flow, depth, all_columns(side))
    return np.asarray(cv2.GaussianBlur(flow[0], (0, 0), side / 128), np.float32)


def _match_colours(flipped: Image, origin: Array, picture: Image, landmarks: Array, seen: Array) -> tuple[Image, Array]:
    """Match the colours of a mirrored picture (S, S, 3) to those of the picture at low frequencies, by corresponding
    points origin and landmarks (468, 2) px with weights `seen`. Returns it and the mean log difference (468,) of each
    point beyond that."""
    side = len(picture)
    difference = _log_colours(picture, landmarks) - _log_colours(flipped, origin)
    columns, rows = np.clip((origin * COARSE_PX / side).astype(int), 0, COARSE_PX - 1).T

    def smooth(weights: Array) -> Array:
        maps = np.zeros((COARSE_PX, COARSE_PX, 4), np.float32)
        np.add.at(maps, (rows, columns), np.c_[weights[:, None] * difference, weights])
        near, far = (cv2.GaussianBlur(maps, (0, 0), times * COLOUR_SIGMA * COARSE_PX) for times in (1, 4))
        maps = near + 1e-3 * far
        return np.asarray(maps[..., :3] / (maps[..., 3:] + 1e-6), np.float32)

    strange = np.abs((difference - smooth(seen)[rows, columns]).mean(1))
    light = smooth(seen * (strange < STRANGE_COLOURS[0]))
    gain = np.exp(cv2.resize(light, (side, side), interpolation=cv2.INTER_LINEAR))
    matched: Image = np.clip(gain * (flipped.astype(np.float32) + LOG_OFFSET) - LOG_OFFSET + 0.5, 0, 255).astype(
        np.uint8
    )
    return matched, strange


def _log_colours(picture: Image, points: Array) -> Array:
    """Sample the logarithm of the blurred colours of a picture (S, S, 3) at points (N, 2) px: (N, 3)."""
    blurred = cv2.GaussianBlur(picture, (0, 0), COLOUR_BLUR * len(picture)).astype(np.float32)
    columns, rows = np.clip(np.round(points).astype(int), 0, len(picture) - 1).T
    return np.asarray(np.log(blurred[rows, columns] + LOG_OFFSET), np.float32)
