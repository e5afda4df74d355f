"""Pose the meshes of many frames at once: face, closed lids, rings around it, texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.edits.basic import turn_head
from kdtalker.renderers.mesh.eyes.lids import LidPose
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square, unpose
from kdtalker.renderers.mesh.head.breathing import breath_shift
from kdtalker.renderers.mesh.head.depth import widen_outline
from kdtalker.renderers.mesh.head.pose_limits import iris_shift
from kdtalker.renderers.mesh.source import MeshSource
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP

BORDER_TURN_DEG = 5.0  # turn of the head at which textures at the face's border are sampled from inside the person


@dataclass(frozen=True)
class PartWeights:
    """Hold the weights 0..1 in one frame: shading of the ratio image around the mouth, inside of what is drawn in the
    mouth, eyes (right, left) of the network that refines lids."""

    shading: float
    inside: float
    eyes: tuple[float, ...]


@dataclass(frozen=True)
class PosedFrame:
    """Hold the geometry of one frame: vertices (468, 3) px of its mesh; resting (468, 3) px, the same with a neutral
    expression; lids, both eyes; points (N, 3) px, the mesh with closed lids and the rings around it, and origin (N, 2)
    px, where they are in the source image; iris (2,) px, the displacement of the irises; closing 0..1 of parted lips;
    turn_deg, the yaw from the source's."""

    vertices: Array
    resting: Array
    lids: LidPose
    points: Array
    origin: Array
    iris: Array
    closing: float
    turn_deg: float


def pose_frames(model: FaceModel, source: MeshSource, motion: Motion) -> list[PosedFrame]:
    """Pose the frames of a motion."""
    vertices, resting = deform_mesh(model, source, motion)
    closing = source.lips.closing(motion)
    closed = source.lids.close(vertices)
    points = np.concatenate([closed, _pose_rings(source, motion, closed)], axis=1).astype(np.float32)
    origin = np.repeat(np.concatenate([source.landmarks, source.rings])[None, :, :2], len(motion), axis=0)
    texture = origin[:, : len(source.landmarks)]
    texture += closing[:, None, None] * source.lips.inset
    texture += _border_visibility(source, motion)[:, None, None] * (source.texture - source.landmarks)[:, :2]
    irises = iris_shift(motion, len(source.picture))
    turns = motion.pose[:, 0] - source.rest.pose[0, 0]
    frames = zip(
        vertices,
        resting,
        source.lids.pose(closed),
        points,
        origin.astype(np.float32),
        irises,
        closing.tolist(),
        turns.tolist(),
        strict=True,
    )
    return [PosedFrame(*frame) for frame in frames]


def blend_weights(model: FaceModel, source: MeshSource, motion: Motion) -> list[PartWeights]:
    """Compute the weights of the parts in each frame, from its expression alone: the mesh is compared with the
    source's in the source's own pose."""
    count, rest, mouth = len(motion), source.rest, source.mouth
    pose, scale, shift = (np.repeat(values, count, axis=0) for values in (rest.pose, rest.scale, rest.shift))
    vertices = _pose_mesh(model, source, replace(turn_head(motion, pose), scale=scale, shift=shift))
    eyes = np.stack([part.blend_weight(vertices) for part in source.parts], -1)
    weights = zip(mouth.shading_weight(vertices).tolist(), mouth.blend_weight(vertices).tolist(), eyes, strict=True)
    return [PartWeights(shading, inside, tuple(each.tolist())) for shading, inside, each in weights]


def deform_mesh(model: FaceModel, source: MeshSource, motion: Motion) -> tuple[Array, Array]:
    """Pose the mesh (T, 468, 3) px of each frame; returns it with the same of a neutral expression."""
    side = len(source.picture)
    turned = source.identity @ rotation_matrix(motion.pose)
    resting = to_pixels(motion.scale[:, None] * turned + motion.shift[:, None], side)
    return _pose_mesh(model, source, motion), resting + _displace(source.lips.residual, motion, side)


def _pose_mesh(model: FaceModel, source: MeshSource, motion: Motion) -> Array:
    side, rest = len(source.picture), source.rest
    vertices = to_pixels(model.pose_vertices(source.identity, motion), side)
    if source.stiffness.any():
        turned = rest.expression @ rotation_matrix(rest.pose).transpose(0, 2, 1) @ rotation_matrix(motion.pose)
        unmoved = replace(motion, expression=turned.astype(np.float32))
        rigid = to_pixels(model.pose_vertices(source.identity, unmoved), side)
        vertices += source.stiffness[:, None] * (rigid - vertices)
    closing = source.lips.closing(motion)
    if closing.any():
        vertices += closing[:, None, None] * _displace(source.lips.residual, motion, side)
    return _separate_lips(vertices, source.landmarks)


def _displace(offsets: Array, motion: Motion, side: int) -> Array:
    """Pose vertex offsets (468, 3) in canonical units by a motion: (T, 468, 3) px."""
    posed: Array = side / 2 * motion.scale[:, None] * (offsets @ rotation_matrix(motion.pose))
    return posed


def _separate_lips(vertices: Array, source: Array) -> Array:
    """Resolve collisions of the inner lips of meshes (T, 468, 3) px: lips that have crossed by more than the landmarks
    of the source (468, 3) px meet half-way."""
    upper, lower = list(INNER_UPPER_LIP[1:-1]), list(INNER_LOWER_LIP[1:-1])
    own = np.maximum(source[upper, 1] - source[lower, 1], 0)
    crossed = np.maximum(vertices[:, upper, 1] - vertices[:, lower, 1] - own, 0) / 2
    vertices[:, upper, 1] -= crossed
    vertices[:, lower, 1] += crossed
    return vertices


def _pose_rings(source: MeshSource, motion: Motion, vertices: Array) -> Array:
    """Pose the ring vertices (T, R, 3) px: they follow the head by their pose weights, and the non-rigid motion of the
    face's oval by their jaw weights."""
    side, oval = len(source.picture), list(FACE_OVAL)

    def pose(in_head: Array) -> Array:
        turned = in_head @ rotation_matrix(motion.pose)
        return to_pixels(motion.scale[:, None] * turned + motion.shift[:, None], side)

    rigid_oval = pose(unpose(to_square(source.landmarks[oval], 0, 0, side), source.rest))
    non_rigid = np.tile(vertices[:, oval] - rigid_oval, (1, len(source.rings) // len(oval), 1))
    followed = source.pose_weight[:, None] * (pose(source.rings_in_head) - source.rings)
    rings: Array = source.rings + followed + source.jaw_weight[:, None] * non_rigid
    rings[..., :2] += side / 2 * widen_outline(source.widening_weight, motion, source.rest)
    return rings + breath_shift(source, motion)


def _border_visibility(source: MeshSource, motion: Motion) -> Array:
    """Ramp from 0 in the source's pose to 1 where the head is turned by BORDER_TURN_DEG: (T,)."""
    yaw, pitch, _ = (motion.pose - source.rest.pose).T
    return np.asarray(np.clip(np.hypot(yaw, pitch) / BORDER_TURN_DEG, 0, 1), np.float32)
