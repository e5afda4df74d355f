"""Encode a source image for the mesh renderer: face geometry, vertex rings around it, person mask, background."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MESH_SPACE, Motion, pose_of_rotation
from kdtalker.face.landmarks import EYE_LOWER, EYE_UPPER, LANDMARKS
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.segmentation import segment_person
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.mesh.anatomy import SMILE, solve_offset
from kdtalker.renderers.mesh.bicubic import make_texture
from kdtalker.renderers.mesh.dirty_tiles import DirtyTiles
from kdtalker.renderers.mesh.eyes.glasses import glasses_stiffness, wears_glasses
from kdtalker.renderers.mesh.eyes.lids import Lids
from kdtalker.renderers.mesh.eyes.parts import EYES, SourcePart
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square, unpose
from kdtalker.renderers.mesh.head.depth import estimate_depth, side_depth, widening_weight
from kdtalker.renderers.mesh.head.inpaint import inpaint_background
from kdtalker.renderers.mesh.head.mirror import MirroredSide, mirror_side
from kdtalker.renderers.mesh.mouth.lips import Lips
from kdtalker.renderers.mesh.mouth.networks import InteriorNetwork
from kdtalker.renderers.mesh.mouth.source import SourceMouth
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP, SKIN

# Rings of vertices between the outline of the face (0) and the border of the square (1), and the weight of the head's
# pose for each, above, beside and below the face: hair and hat move with the head, shoulders do not.
RING_POSITIONS = (0.12, 0.28, 0.46, 0.66, 0.9)
POSE_WEIGHT_ABOVE = (1.0, 1.0, 0.9, 0.5, 0.0)
POSE_WEIGHT_BESIDE = (1.0, 0.9, 0.6, 0.25, 0.0)
POSE_WEIGHT_BELOW = (0.9, 0.65, 0.35, 0.12, 0.0)
JAW_WEIGHT = (0.55, 0.2, 0.05, 0.0, 0.0)  # share of the outline's non-rigid motion that each ring follows
RING_DEPTH = (0.1, 0.25, 0.35, 0.4, 0.4)  # of each ring behind the outline, in canonical units
SMILE_SHARE = 0.6  # of a photographed smile, taken for expression: who looks friendly at rest stays so
MOUTH_ENDS = (61, 291)  # corners of the outer lips
BROWS, MOUTH_AND_CHIN = (105, 66, 334, 296), (61, 291, 13, 14, 17, 152)  # landmarks that a blink leaves alone
OUTLINE_DEPTH_RATIO = 1.1  # where the outline is farther out than this times the oval, it takes the hull's depth
FACE_SHARE = 0.92  # landmarks scaled by this around their centre bound the area that always counts as the person
MASK_RANGE, MATTE_RANGE = (0.15, 0.75), (0.1, 0.9)  # of `segment_person`, wider than for alpha mattes: hair moves too
EPSILON = 2e-3  # of the guided filter that refines the person mask
MAX_SHRINK = 0.12  # share of its way to the centre by which a landmark outside the person may be moved inside


@dataclass(frozen=True)
class MeshSource:
    """Hold an encoded source image.

    picture (S, S, 3), background (S, S, 3) with the person inpainted, person (S, S) 0..1 the mask;
    identity (468, 3) canonical vertices as drawn, mouth closed and depth compressed; canonical (21, 3) keypoints;
    rest (T = 1) the source's own motion; shut (21, 3) the expression offset that closes its eyelids;
    stiffness (468,) 0..1 of landmarks under glasses; landmarks (468, 3) px; texture (468, 3) px, the same moved onto
    the person; rings (R, 3) px, rings_in_head (R, 3) in the head's frame, their weights pose_weight, jaw_weight
    and widening_weight (R,); triangles (M, 3) over landmarks and rings; parts that a network refines; mouth, the inside
    of it; lids; lips, how they close; mirrored, the texture of the face's far side, None for a frontal face."""

    picture: Image
    background: Image
    person: Array
    identity: Array
    canonical: Array
    rest: Motion
    shut: Array
    stiffness: Array
    landmarks: Array
    texture: Array
    rings: Array
    rings_in_head: Array
    pose_weight: Array
    jaw_weight: Array
    widening_weight: Array
    triangles: NDArray[np.int32]
    parts: tuple[SourcePart, ...]
    mouth: SourceMouth
    lids: Lids
    lips: Lips
    mirrored: MirroredSide | None

    @cached_property
    def samples(self) -> Image:
        """Prepare the picture and its mask once for bicubic sampling, as `make_texture` does."""
        return make_texture(self.picture, self.person)

    @cached_property
    def dirty_tiles(self) -> DirtyTiles:
        """Measure once where a frame may differ from the picture."""
        return DirtyTiles.of(self.picture, self.background, self.person)


def encode_source(
    face: Image, tracker: FaceTracker, segmenter: LiteRTModel, model: FaceModel, interior: InteriorNetwork
) -> MeshSource:
    """Encode a face crop (S, S, 3) RGB by the face nearest to its centre. Raises InputError where no face is found."""
    side, tracked = len(face), _find_middle_face(face, tracker)
    vertices = to_square(tracked, 0, 0, side)
    scale, rotation, shift, canonical = model.fit(vertices)
    offset = model.resting_offset(canonical)
    offset = offset + smile_offset(canonical - model.spreads @ offset, model)
    identity = canonical - model.spreads @ offset
    rest = Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], (offset @ rotation)[None], MESH_SPACE)
    deep = estimate_depth(vertices, rest, model.mean)
    drawn = unpose(deep, rest) - model.spreads @ offset
    rings, pose_weight, jaw_weight = _build_rings(deep)
    rings[:, 2] += side_depth(rings, rest)
    rings_in_head = unpose(rings, rest)
    resting = neutral_mesh(model, drawn, rest, side)
    person = _segment_face(face, segmenter, tracked)
    landmarks, texture = to_pixels(deep, side), _move_inside(tracked, person)
    return MeshSource(
        picture=face,
        background=inpaint_background(face, person),
        person=person,
        identity=drawn,
        canonical=model.picks @ identity,
        rest=rest,
        shut=shut_offset(identity, model) @ rotation,
        stiffness=glasses_stiffness(tracked) * wears_glasses(face, tracked),
        landmarks=landmarks,
        texture=texture,
        rings=to_pixels(rings, side),
        rings_in_head=rings_in_head,
        pose_weight=pose_weight,
        jaw_weight=jaw_weight,
        widening_weight=widening_weight(rings_in_head, pose_weight),
        triangles=_build_triangles(),
        mouth=SourceMouth.fit(face, tracked, resting, drawn, interior),
        lids=Lids.of(face, tracked),
        lips=Lips.of(face, tracked, model, drawn, offset),
        mirrored=mirror_side(face, person, landmarks=landmarks, texture=texture, rest=rest, mean=model.mean),
        parts=tuple(SourcePart.of(part, face, person, tracked, resting) for part in EYES),
    )


def _find_middle_face(face: Image, tracker: FaceTracker) -> Array:
    """Find the landmarks (468, 3) px of the face nearest to the centre of a crop (S, S, 3). Raises InputError where
    there is none."""
    faces = tracker.find(face)
    if not faces:
        raise InputError("No face was found in the square around the face; give a picture with a clearer one.")
    middle = (len(face) - 1) / 2
    return min((one.landmarks for one in faces), key=lambda points: float(np.hypot(*(points[:, :2].mean(0) - middle))))


def neutral_mesh(model: FaceModel, identity: Array, motion: Motion, side: int) -> Array:
    """Pose the mesh (468, 3) px by a motion (T = 1) with a neutral expression: mouth closed, eyes as in the source."""
    at_rest = Motion(motion.scale, motion.pose, motion.shift, 0 * motion.expression, MESH_SPACE)
    return to_pixels(model.pose_vertices(identity, at_rest)[0], side)


def smile_offset(identity: Array, model: FaceModel) -> Array:
    """Estimate the offset (21, 3) of a smile in an identity (468, 3) with closed lips, by how much higher its mouth
    corners are above its lips than the mean face's; SMILE_SHARE of it is expression, which relaxes at rest."""
    smile = solve_offset(model, SMILE)
    lips, corners = [13, 14, 17], list(MOUTH_ENDS)

    def rise(vertices: Array) -> float:
        return float(vertices[lips, 1].mean() - vertices[corners, 1].mean())

    amount = (rise(identity) - rise(model.mean)) / rise(model.spreads @ smile)
    return np.asarray(SMILE_SHARE * np.clip(amount, 0, 1) * smile, np.float32)


def shut_offset(identity: Array, model: FaceModel) -> Array:
    """Solve for the offset (21, 3) that closes both eyes of an identity (468, 3): the model's blink, with brows and
    mouth where they were (in films they move with the eyes, but not in a blink)."""
    lids, others = [*EYE_UPPER, *EYE_LOWER], [*BROWS, *MOUTH_AND_CHIN]
    heights = np.asarray(np.kron(model.spreads[[*lids, *others]], [0, 1, 0]), np.float32)
    moved = heights @ model.blink.ravel()
    moved[: len(lids)] = 0
    blink = model.blink - model.map_expression(heights, moved).reshape(model.blink.shape)
    upper, lower = list(EYE_UPPER), list(EYE_LOWER)
    gap = (identity[lower] - identity[upper])[:, 1]
    falls = ((model.spreads[upper] - model.spreads[lower]) @ blink)[:, 1]
    return np.asarray(np.max(gap / falls) * blink, np.float32)


def _build_rings(vertices: Array) -> tuple[Array, Array, Array]:
    """Place ring vertices (R, 3) in square units, outward from the face's outline to the border, with their pose
    weights and jaw weights (R,)."""
    down = vertices[152, :2] - vertices[10, :2]
    down = down / np.linalg.norm(down)
    oval = vertices[list(FACE_OVAL)]
    nose, middle = vertices[[168, 1, 6], :2].mean(0), oval[:, :2].mean(0)
    centre = middle + (nose - middle) @ down * down
    outline = _find_outline(vertices, centre)
    along = outline[:, :2] - centre
    reach = np.min(
        np.where(along > 0, (1 - centre) / np.maximum(along, 1e-6), (-1 - centre) / np.minimum(along, -1e-6)), 1
    )
    border = centre + along * np.maximum(reach, 1.05)[:, None]
    below = (along @ down) / np.linalg.norm(along, axis=1)  # -1 above the face, 1 below
    unit = np.linalg.norm(vertices[33, :2] - vertices[263, :2])
    rings, pose_weight, jaw_weight = [], [], []
    for ring, position in enumerate(RING_POSITIONS):
        xy = outline[:, :2] + position * (border - outline[:, :2])
        rings.append(np.concatenate([xy, outline[:, 2:] + RING_DEPTH[ring] * unit], axis=1))
        weights = POSE_WEIGHT_ABOVE[ring], POSE_WEIGHT_BESIDE[ring], POSE_WEIGHT_BELOW[ring]
        pose_weight.append(np.interp(below, [-0.5, 0.1, 0.75], weights))
        jaw_weight.append(np.full(len(oval), JAW_WEIGHT[ring]))
    return tuple(np.concatenate(part).astype(np.float32) for part in (rings, pose_weight, jaw_weight))  # type: ignore[return-value]


def _find_outline(vertices: Array, centre: Array) -> Array:
    """Move the face's oval (36, 3) away from centre (2,) onto the convex hull of the mesh: in profile, nose and lips
    are outside the far half of the oval."""
    hull = vertices[cv2.convexHull(np.ascontiguousarray(vertices[:, :2], np.float32), returnPoints=False)[:, 0]]
    outline = vertices[list(FACE_OVAL)].copy()
    edges = np.roll(hull[:, :2], -1, axis=0) - hull[:, :2]
    outward = np.stack([edges[:, 1], -edges[:, 0]], 1)
    outward *= np.sign((outward * (hull[:, :2] - centre)).sum(1, keepdims=True))
    along = outline[:, :2] - centre
    steep = along @ outward.T
    room = (outward * (hull[:, :2] - centre)).sum(1) / np.where(steep > 1e-9, steep, np.nan)
    share = np.maximum(np.nanmin(room, axis=1), 1)
    outline[:, :2] = centre + share[:, None] * along
    nearest = np.linalg.norm(outline[:, None, :2] - hull[None, :, :2], axis=2).argmin(1)
    outline[:, 2] = np.where(share > OUTLINE_DEPTH_RATIO, hull[nearest, 2], outline[:, 2])
    return outline


def _build_triangles() -> NDArray[np.int32]:
    """Build the triangles (M, 3) of the skin, the inside of the mouth and the strips between the rings."""
    triangles = [*SKIN]
    for first, second in zip(range(10), range(1, 11), strict=True):
        upper, lower = INNER_UPPER_LIP, INNER_LOWER_LIP
        triangles += [(upper[first], upper[second], lower[first]), (upper[second], lower[second], lower[first])]
    count = len(FACE_OVAL)
    inner = list(FACE_OVAL)
    for ring in range(len(RING_POSITIONS)):
        outer = [LANDMARKS + ring * count + place for place in range(count)]
        for here in range(count):
            there = (here + 1) % count
            triangles += [(inner[here], inner[there], outer[here]), (inner[there], outer[there], outer[here])]
        inner = outer
    return np.array([corners for corners in triangles if len(set(corners)) == 3], np.int32)


def _segment_face(face: Image, segmenter: LiteRTModel, landmarks: Array) -> Array:
    """Segment the person in a face crop (S, S, 3): a soft mask (S, S) 0..1 in which the face is always included."""
    side = len(face)
    matte = segment_person(
        face, segmenter, mask_range=MASK_RANGE, matte_range=MATTE_RANGE, radius=side // 80, epsilon=EPSILON
    )
    middle = landmarks[:, :2].mean(0)
    inner = cv2.convexHull(np.round(middle + FACE_SHARE * (landmarks[:, :2] - middle)).astype(np.int32))
    hull = cv2.fillConvexPoly(np.zeros((side, side), np.float32), inner, 1.0)
    return np.asarray(np.maximum(matte, cv2.GaussianBlur(hull, (0, 0), side / 128)), np.float32)


def _move_inside(landmarks: Array, person: Array) -> Array:
    """Move landmarks (468, 3) px that lie outside the person mask (S, S) towards their centre until they are inside."""
    centre, side = landmarks[:, :2].mean(0), len(person)
    inside = landmarks.copy()
    for share in np.linspace(0, MAX_SHRINK, 13):
        columns, rows = np.clip(np.round(inside[:, :2]).astype(int), 0, side - 1).T
        outside = person[rows, columns] < 0.95
        inside[outside, :2] = landmarks[outside, :2] + share * (centre - landmarks[outside, :2])
    return inside
