"""Estimate the depth of a head from one view: symmetric sides, a face that is not too steep, ears behind it.

Depth is along the camera's axis; x and y of the source image never change."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.renderers.mesh.geometry import mirror_landmarks, unpose, vertex_normals

# Cosine by which the mirrored side is seen better, from which on its depth replaces that of the far side.
SYMMETRY_COSINE = 0.3
STEEP_DEPTH, DEPTH_SCALE = 0.7, 0.4  # depth behind the nose's tip, in canonical units, beyond which it is scaled down
HEAD_HALF_WIDTH, HEAD_HALF_LENGTH = 0.85, 1.0  # of an ellipsoid head seen from above, in canonical units
MAX_SIDE_DEPTH = 0.24  # by which the near side's ear and hair are moved back, in canonical units
SIDE_SHARE = 0.3  # of the depth that would put them onto the ellipsoid's side
SIDE_SINE = 0.15  # sine of the source's yaw from which on they are moved all the way
MAX_WIDENING_YAW_DEG = 25.0  # yaw beyond which the outline of the head widens no more
FAR_WIDENING = 0.5  # share of the widening on the side that turns away, where the face forms the outline
WIDENING_RANGE = (0.4, -0.4)  # heights in the head's frame at which the widening is 0 and 1: hair, not ears and neck


def estimate_depth(vertices: Array, rest: Motion, mean: Array) -> Array:
    """Estimate the depth of a tracked mesh (468, 3) with pose `rest` (T = 1): the far side has that of the near one,
    mirrored, and steep sides are flattened, which the tracker overestimates and whose texture is too short to be
    turned into view. mean (468, 3): the symmetric mean face."""
    mirror, rotation = mirror_landmarks(mean), rotation_matrix(rest.pose)[0]
    in_head = unpose(vertices, rest)
    mirrored = rest.scale[0] * (in_head[mirror] * np.array([-1, 1, 1], np.float32) @ rotation) + rest.shift[0]
    facing = -(vertex_normals(mean) @ rotation)[:, 2]
    estimated = vertices.copy()
    estimated[:, 2] += smoothstep((facing[mirror] - facing) / SYMMETRY_COSINE) * (mirrored - vertices)[:, 2]
    behind = unpose(estimated, rest)[:, 2]
    estimated[:, 2] -= (1 - DEPTH_SCALE) * rest.scale[0] * np.maximum(behind - behind.min() - STEEP_DEPTH, 0)
    return estimated


def side_depth(rings: Array, rest: Motion) -> Array:
    """Compute the depth (R,) to add to ring vertices (R, 3), so that ear and hair on the near side of a head in
    three-quarter view lie on its side instead of standing out from it."""
    across = unpose(rings, rest)[:, 0]
    slope = -np.sign(across) * rotation_matrix(rest.pose)[0][0, 2]  # of `across` towards the middle, with depth
    beyond = np.maximum(np.abs(across) - HEAD_HALF_WIDTH, 0)
    moved = np.minimum(SIDE_SHARE * beyond / np.maximum(slope, 1e-3), MAX_SIDE_DEPTH) * smoothstep(slope / SIDE_SINE)
    return np.asarray(rest.scale[0] * moved, np.float32)


def widening_weight(rings_in_head: Array, pose_weight: Array) -> Array:
    """Compute the weight (R,), -1..1 from the right to the left of the head, with which ring vertices follow the
    outline of an ellipsoid head as it widens."""
    low, high = WIDENING_RANGE
    height = smoothstep((rings_in_head[:, 1] - low) / (high - low))
    return np.asarray(pose_weight * height * np.clip(rings_in_head[:, 0] / HEAD_HALF_WIDTH, -1, 1), np.float32)


def widen_outline(weight: Array, motion: Motion, rest: Motion) -> Array:
    """Compute the displacement (T, R, 2) in square units of ring vertices with a widening weight (R,) by a motion: a
    head is longer than wide, and when it turns, more of it comes into view than the source image shows."""
    yaw, _, roll = motion.pose.T[..., None]
    wider = _widening(yaw) - _widening(rest.pose[0, 0])
    turns_away = weight * (yaw - rest.pose[0, 0]) < 0
    by = motion.scale * wider * np.where(turns_away, FAR_WIDENING, 1) * weight
    along = np.stack([np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll))], -1)
    return np.asarray(by[..., None] * along, np.float32)


def _widening(yaw_deg: Array) -> Array:
    """Compute by how much the outline of an ellipsoid with this yaw is wider than its turned front view; any shape."""
    yaw = np.deg2rad(np.clip(yaw_deg, -MAX_WIDENING_YAW_DEG, MAX_WIDENING_YAW_DEG))
    width = HEAD_HALF_WIDTH * np.cos(yaw)
    return np.asarray(np.hypot(width, HEAD_HALF_LENGTH * np.sin(yaw)) - width, np.float32)
