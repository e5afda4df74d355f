"""A face, encoded once for the mesh renderer: its geometry, what stands around it and what lies behind it."""

from __future__ import annotations

from dataclasses import dataclass

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
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square
from kdtalker.renderers.mesh.glasses import held_by_glasses, wears_glasses
from kdtalker.renderers.mesh.inpaint import fill_behind
from kdtalker.renderers.mesh.lids import Lids
from kdtalker.renderers.mesh.parts import EYES, MOUTH, PhotographedPart
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP, SKIN

# Rings of vertices between the face's oval (0) and the border of the square (1), and how far each follows the head
# above, beside and below the face: hair and hat move with the head, shoulders do not.
RING_PLACES = (0.12, 0.28, 0.46, 0.66, 0.9)
FOLLOW_ABOVE = (1.0, 1.0, 0.9, 0.5, 0.0)
FOLLOW_BESIDE = (1.0, 0.9, 0.6, 0.25, 0.0)
FOLLOW_BELOW = (0.9, 0.65, 0.35, 0.12, 0.0)
FOLLOW_JAW = (0.55, 0.2, 0.05, 0.0, 0.0)  # share of the oval's own, unrigid motion that a ring takes on
RING_DEPTH = (0.1, 0.25, 0.35, 0.4, 0.4)  # behind the oval, in canonical units
STEEP_FROM, STEEPNESS = 0.7, 0.4  # depth behind the tip of the nose, in eye distances, and what is left of it beyond
STANDS_OUT = 1.1  # what stands so far out beyond the oval, seen from its middle, is not of its depth
SURE_FACE = 0.92  # the face's landmarks, drawn in by this towards its middle, are the person whatever the network says
MASK_RANGE, MATTE_RANGE = (0.15, 0.75), (0.1, 0.9)  # wider than those of a matte that is shown: hair moves too
EPSILON = 2e-3  # of the guided filter that refines the mask
FARTHEST_IN = 0.12  # of the way to the face's middle, by which a landmark beside the person may be moved in


@dataclass(frozen=True)
class MeshSource:
    """picture (S, S, 3); behind (S, S, 3) the same without the person; person (S, S) 0..1; identity (468, 3)
    canonical vertices with the mouth shut and the sides made flatter, as they are drawn; canonical (21, 3) keypoints of
    the face as it is; landmarks (468, 3) px, within (468, 3) px the same but on the person; rings (R, 3) px with their
    rigid places in the head (R, 3) and weights follow, jaw (R,); triangles (M, 3) of both; rest the photograph's
    motion; shut (21, 3) closes its lids; held (468,) is what glasses keep still; parts are repainted; lids move the
    eyes'."""

    picture: Image
    behind: Image
    person: Array
    identity: Array
    canonical: Array
    rest: Motion
    shut: Array
    held: Array
    landmarks: Array
    within: Array
    rings: Array
    rings_in_head: Array
    follow: Array
    jaw: Array
    triangles: NDArray[np.int32]
    parts: tuple[PhotographedPart, ...]
    lids: Lids


def encode(face: Image, tracker: FaceTracker, segmenter: LiteRTModel, model: FaceModel) -> MeshSource:
    """(S, S, 3) RGB to a source. Raises InputError where no face is found."""
    faces = tracker.find(face)
    if not faces:
        raise InputError("No face was found in the square around the face; give a picture with a clearer one.")
    side = len(face)
    middle = (side - 1) / 2
    found = min(faces, key=lambda one: float(np.hypot(*(one.landmarks[:, :2].mean(0) - middle))))
    vertices = to_square(found.landmarks, 0, 0, side)
    scale, rotation, shift, canonical = model.fit(vertices)
    offset = model.resting_offset(canonical)
    identity = canonical - model.spreads @ offset
    flat = _flatter(vertices)
    drawn = np.asarray((flat - shift) / scale @ rotation.T - model.spreads @ offset, np.float32)
    rest = Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], (offset @ rotation)[None], MESH_SPACE)
    rings, follow, jaw = _rings(flat)
    rings_in_head = (rings - shift) / scale @ rotation.T
    resting = resting_face(model, drawn, rest, side)
    person = _person_mask(face, segmenter, found.landmarks)
    return MeshSource(
        picture=face,
        behind=fill_behind(face, person),
        person=person,
        identity=drawn,
        canonical=model.picks @ identity,
        rest=rest,
        shut=_lid_gain(identity, model) * (model.blink @ rotation),
        held=held_by_glasses(found.landmarks) * wears_glasses(face, found.landmarks),
        landmarks=to_pixels(flat, side),
        within=_inside(found.landmarks, person),
        rings=to_pixels(rings, side),
        rings_in_head=rings_in_head.astype(np.float32),
        follow=follow,
        jaw=jaw,
        triangles=_triangles(),
        lids=Lids(found.landmarks),
        parts=tuple(PhotographedPart.of(part, face, person, found.landmarks, resting) for part in (MOUTH, *EYES)),
    )


def _flatter(vertices: Array) -> Array:
    """The face (468, 3) with the steep sides of its depth made less so: the mesh overstates them, and a picture of
    them has little to show when they turn into view."""
    nearest = vertices[:, 2].min()
    flatter = vertices.copy()
    unit = np.linalg.norm(vertices[33, :2] - vertices[263, :2])
    beyond = np.maximum(vertices[:, 2] - nearest - STEEP_FROM * unit, 0)
    flatter[:, 2] -= (1 - STEEPNESS) * beyond
    return flatter


def resting_face(model: FaceModel, identity: Array, motion: Motion, side: int) -> Array:
    """The head (468, 3) px in a motion's pose (T = 1), its mouth shut and its eyes as they are photographed."""
    at_rest = Motion(motion.scale, motion.pose, motion.shift, 0 * motion.expression, MESH_SPACE)
    return to_pixels(model.pose_vertices(identity, at_rest)[0], side)


def _lid_gain(identity: Array, model: FaceModel) -> float:
    """How many units of the model's blink close this face's eyes, the wider one counting."""
    upper, lower = list(EYE_UPPER), list(EYE_LOWER)
    gap = (identity[lower] - identity[upper])[:, 1]
    falls = ((model.spreads[upper] - model.spreads[lower]) @ model.blink)[:, 1]
    return float(np.max(gap / falls))


def _rings(vertices: Array) -> tuple[Array, Array, Array]:
    """Ring vertices (R, 3) in square units, outward from the oval to the border, with their weights (R,)."""
    down = vertices[152, :2] - vertices[10, :2]
    down = down / np.linalg.norm(down)
    oval = vertices[list(FACE_OVAL)]
    nose, middle = vertices[[168, 1, 6], :2].mean(0), oval[:, :2].mean(0)
    centre = middle + (nose - middle) @ down * down
    outline = _outline(vertices, centre)
    along = outline[:, :2] - centre
    reach = np.min(
        np.where(along > 0, (1 - centre) / np.maximum(along, 1e-6), (-1 - centre) / np.minimum(along, -1e-6)), 1
    )
    border = centre + along * np.maximum(reach, 1.05)[:, None]
    below = (along @ down) / np.linalg.norm(along, axis=1)  # -1 above the face, 1 below
    unit = np.linalg.norm(vertices[33, :2] - vertices[263, :2])
    rings, follow, jaw = [], [], []
    for ring, place in enumerate(RING_PLACES):
        xy = outline[:, :2] + place * (border - outline[:, :2])
        rings.append(np.concatenate([xy, outline[:, 2:] + RING_DEPTH[ring] * unit], axis=1))
        follow.append(
            np.interp(below, [-0.5, 0.1, 0.75], [FOLLOW_ABOVE[ring], FOLLOW_BESIDE[ring], FOLLOW_BELOW[ring]])
        )
        jaw.append(np.full(len(oval), FOLLOW_JAW[ring]))
    return tuple(np.concatenate(part).astype(np.float32) for part in (rings, follow, jaw))  # type: ignore[return-value]


def _outline(vertices: Array, centre: Array) -> Array:
    """The face's oval (36, 3) moved out, away from centre (2,), to where the face ends: seen from the side, nose and
    lips stand out beyond the far half of the oval."""
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
    outline[:, 2] = np.where(share > STANDS_OUT, hull[nearest, 2], outline[:, 2])
    return outline


def _triangles() -> NDArray[np.int32]:
    """Skin, the inside of the mouth, and the strips between the rings."""
    triangles = [*SKIN]
    for first, second in zip(range(10), range(1, 11), strict=True):
        upper, lower = INNER_UPPER_LIP, INNER_LOWER_LIP
        triangles += [(upper[first], upper[second], lower[first]), (upper[second], lower[second], lower[first])]
    count = len(FACE_OVAL)
    inner = list(FACE_OVAL)
    for ring in range(len(RING_PLACES)):
        outer = [LANDMARKS + ring * count + place for place in range(count)]
        for here in range(count):
            there = (here + 1) % count
            triangles += [(inner[here], inner[there], outer[here]), (inner[there], outer[there], outer[here])]
        inner = outer
    return np.array([corners for corners in triangles if len(set(corners)) == 3], np.int32)


def _person_mask(face: Image, segmenter: LiteRTModel, landmarks: Array) -> Array:
    """Segment the person in a face crop (S, S, 3): a soft mask (S, S) 0..1 in which the face is always included."""
    side = len(face)
    matte = segment_person(
        face, segmenter, mask_range=MASK_RANGE, matte_range=MATTE_RANGE, radius=side // 80, epsilon=EPSILON
    )
    middle = landmarks[:, :2].mean(0)
    inner = cv2.convexHull(np.round(middle + SURE_FACE * (landmarks[:, :2] - middle)).astype(np.int32))
    hull = cv2.fillConvexPoly(np.zeros((side, side), np.float32), inner, 1.0)
    return np.asarray(np.maximum(matte, cv2.GaussianBlur(hull, (0, 0), side / 128)), np.float32)


def _inside(landmarks: Array, person: Array) -> Array:
    """The landmarks (468, 3) px, those beside the person moved towards the face's middle until they are within."""
    middle, side = landmarks[:, :2].mean(0), len(person)
    within = landmarks.copy()
    for share in np.linspace(0, FARTHEST_IN, 13):
        columns, rows = np.clip(np.round(within[:, :2]).astype(int), 0, side - 1).T
        beside = person[rows, columns] < 0.95
        within[beside, :2] = landmarks[beside, :2] + share * (middle - landmarks[beside, :2])
    return within
