"""A face, encoded once for the mesh renderer: its geometry, what stands around it and what lies behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.errors import InputError
from kdtalker.litert import LiteRTModel
from kdtalker.mesh.geometry import SPACE, FaceModel, to_pixels, to_square
from kdtalker.mesh.mouth import Mouth
from kdtalker.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP, SKIN
from kdtalker.motion import Array, Motion, pose_of_rotation
from kdtalker.renderer import Image
from kdtalker.tracker import EYE_LOWER, EYE_UPPER, LANDMARKS, FaceTracker

# Rings of vertices between the face's oval (0) and the border of the square (1), and how far each follows the head
# above, beside and below the face: hair and hat move with the head, shoulders do not.
RING_PLACES = (0.12, 0.28, 0.46, 0.66, 0.9)
FOLLOW_ABOVE = (1.0, 1.0, 0.9, 0.5, 0.0)
FOLLOW_BESIDE = (1.0, 0.9, 0.6, 0.25, 0.0)
FOLLOW_BELOW = (0.9, 0.65, 0.35, 0.12, 0.0)
FOLLOW_JAW = (0.55, 0.2, 0.05, 0.0, 0.0)  # share of the oval's own, unrigid motion that a ring takes on
RING_DEPTH = (0.1, 0.25, 0.35, 0.4, 0.4)  # behind the oval, in canonical units
_SEGMENTER_SIDE_PX = 256


@dataclass(frozen=True)
class MeshSource:
    """picture (S, S, 3); behind (S, S, 3) the same without the person; person (S, S) 0..1; identity (468, 3)
    canonical vertices with the mouth shut; landmarks (468, 3) px; rings (R, 3) px with their rigid places in the
    head (R, 3) and weights follow, jaw (R,); triangles (M, 3) of both;
    rest the photograph's motion; shut (21, 3) closes its lids; mouth draws its inside."""

    picture: Image
    behind: Image
    person: Array
    identity: Array
    canonical: Array
    rest: Motion
    shut: Array
    landmarks: Array
    rings: Array
    rings_in_head: Array
    follow: Array
    jaw: Array
    triangles: NDArray[np.int32]
    mouth: Mouth


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
    rest = Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], (offset @ rotation)[None], SPACE)
    rings, follow, jaw = _rings(vertices)
    rings_in_head = (rings - shift) / scale @ rotation.T
    person = _person_mask(face, segmenter, found.landmarks)
    return MeshSource(
        picture=face,
        behind=_fill(face, person),
        person=person,
        identity=identity,
        canonical=model.picks @ identity,
        rest=rest,
        shut=_lid_gain(identity, model) * (model.blink @ rotation),
        landmarks=found.landmarks,
        rings=to_pixels(rings, side),
        rings_in_head=rings_in_head.astype(np.float32),
        follow=follow,
        jaw=jaw,
        triangles=_triangles(),
        mouth=Mouth.of(face, found.landmarks, shut_mouth(model, identity, rest, side)),
    )


def shut_mouth(model: FaceModel, identity: Array, motion: Motion, side: int) -> Array:
    """The head (468, 3) px in a motion's pose (T = 1), its mouth shut."""
    at_rest = Motion(motion.scale, motion.pose, motion.shift, 0 * motion.expression, SPACE)
    return to_pixels(model.pose_vertices(identity, at_rest)[0], side)


def _lid_gain(identity: Array, model: FaceModel) -> float:
    """How many units of the model's blink close this face's eyes, the wider one counting."""
    upper, lower = list(EYE_UPPER), list(EYE_LOWER)
    gap = (identity[lower] - identity[upper])[:, 1]
    falls = ((model.spreads[upper] - model.spreads[lower]) @ model.blink)[:, 1]
    return float(np.max(gap / falls))


def _rings(vertices: Array) -> tuple[Array, Array, Array]:
    """Ring vertices (R, 3) in square units, outward from the oval to the border, with their weights (R,)."""
    oval = vertices[list(FACE_OVAL)]
    centre = vertices[[168, 1, 6]].mean(0)[:2]
    along = oval[:, :2] - centre
    reach = np.min(
        np.where(along > 0, (1 - centre) / np.maximum(along, 1e-6), (-1 - centre) / np.minimum(along, -1e-6)), 1
    )
    border = centre + along * np.maximum(reach, 1.05)[:, None]
    down = vertices[152, :2] - vertices[10, :2]
    down = down / np.linalg.norm(down)
    below = (along @ down) / np.linalg.norm(along, axis=1)  # -1 above the face, 1 below
    unit = np.linalg.norm(vertices[33, :2] - vertices[263, :2])
    rings, follow, jaw = [], [], []
    for ring, place in enumerate(RING_PLACES):
        xy = oval[:, :2] + place * (border - oval[:, :2])
        rings.append(np.concatenate([xy, oval[:, 2:] + RING_DEPTH[ring] * unit], axis=1))
        follow.append(
            np.interp(below, [-0.5, 0.1, 0.75], [FOLLOW_ABOVE[ring], FOLLOW_BESIDE[ring], FOLLOW_BELOW[ring]])
        )
        jaw.append(np.full(len(oval), FOLLOW_JAW[ring]))
    return tuple(np.concatenate(part).astype(np.float32) for part in (rings, follow, jaw))  # type: ignore[return-value]


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
    """(S, S) 0..1: the person, the face certainly included."""
    side = len(face)
    small = cv2.resize(face, (_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX), interpolation=cv2.INTER_AREA)
    (mask,) = segmenter(small.astype(np.float32) / 255)
    sure = np.clip((mask.reshape(_SEGMENTER_SIDE_PX, _SEGMENTER_SIDE_PX) - 0.15) / 0.6, 0, 1)
    sure = cv2.resize(sure.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    hull = np.zeros((side, side), np.float32)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.round(landmarks[:, :2]).astype(np.int32)), 1.0)
    return np.asarray(np.maximum(sure, cv2.GaussianBlur(hull, (0, 0), side / 100)), np.float32)


def _fill(face: Image, person: Array) -> Image:
    """The picture with the person painted over from its surroundings; only a narrow rim of this is ever seen."""
    side = len(face)
    small = 128
    picture = cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA)
    hidden = cv2.dilate(cv2.resize(person, (small, small), interpolation=cv2.INTER_AREA), np.ones((3, 3))) > 0.05
    painted = cv2.inpaint(picture, hidden.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    painted = cv2.resize(painted, (side, side), interpolation=cv2.INTER_CUBIC)
    weight = np.clip(4 * cv2.GaussianBlur(person, (0, 0), side / 250), 0, 1)[..., None]
    filled: Image = (weight * painted + (1 - weight) * face + 0.5).astype(np.uint8)
    return filled
