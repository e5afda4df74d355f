"""The embedded renderer: implicit keypoints to face mesh to backward flow to picture, on the CPU in real time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from kdtalker.errors import InputError
from kdtalker.litert import LiteRTModel
from kdtalker.mesh.geometry import SPACE, FaceModel, to_pixels, to_square
from kdtalker.mesh.lids import draw_lids, move_lids
from kdtalker.mesh.raster import backward_flow, composite
from kdtalker.mesh.source import MeshSource, encode, shut_mouth
from kdtalker.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP
from kdtalker.motion import Array, Motion, pose_of_rotation, rotation_matrix
from kdtalker.portrait import face_square
from kdtalker.renderer import Image
from kdtalker.tracker import EYE_CONTOURS, FaceTracker

STILL_PX = 0.02  # a pixel that moves less is the photograph's own
# Landmarks around each eye that a blink does not move; the eyeball's picture follows them.
_EYE_SOCKETS = ((33, 133, 226, 244, 229, 231, 223, 27, 23), (263, 362, 446, 464, 449, 451, 443, 257, 253))


class MeshRenderer:
    """Draws portraits in the keypoint space "mesh"."""

    space = SPACE

    def __init__(self, tracker: FaceTracker, segmenter: LiteRTModel, model: FaceModel) -> None:
        self._tracker, self._segmenter, self.model = tracker, segmenter, model

    @staticmethod
    def load(tracker: FaceTracker) -> MeshRenderer:
        """With the weights that ship with the package."""
        return MeshRenderer(tracker, LiteRTModel("selfie_segmentation.tflite"), FaceModel.load())

    def encode_source(self, face: Image) -> MeshSource:
        """(S, S, 3) RGB, one face roughly in the middle, to what `render` needs. Raises InputError without a face."""
        return encode(face, self._tracker, self._segmenter, self.model)

    def render(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        """One (S, S, 3) RGB frame for each of the motion's. Raises InputError for another keypoint space."""
        if motion.space != self.space:
            raise InputError(
                f"The motion lives in the keypoint space '{motion.space}', this renderer draws '{self.space}'; "
                "make the motion with the same engine."
            )
        return self._frames(source, motion)

    def _frames(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        side = len(source.picture)
        for frame in range(len(motion)):
            one = motion[frame : frame + 1]
            vertices = to_pixels(self.model.pose_vertices(source.identity, one)[0], side)
            jaw_closed = shut_mouth(self.model, source.identity, one, side)
            vertices, lids = move_lids(_part_lips(vertices), source.landmarks)
            picture = _warp(source, vertices, lids, _posed_rings(source, one, vertices))
            draw_lids(picture, source.picture, vertices, source.landmarks)
            source.mouth.draw(picture, vertices, jaw_closed)
            yield picture

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """The motion of a film's face, one frame a piece: the largest face of the first frame that has one, in the
        square around it; where it is lost it rests. Raises InputError for a film without a face."""
        face, last, identity, waiting = None, None, None, 0
        for frame in frames:
            if face is None:
                face = next(iter(self._tracker.find(frame)), None)
            else:
                face = self._tracker.follow(frame, face) or face
            if face is None:
                waiting += 1
                continue
            if identity is None:
                square = face_square(face)
                canonical = self.model.fit(to_square(face.landmarks, *square))[3]
                identity = canonical - self.model.spreads @ self.model.resting_offset(canonical)
            scale, rotation, shift, canonical = self.model.fit(to_square(face.landmarks, *square))
            expression = self.model.offsets(canonical[None], identity) @ rotation
            last = Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], expression, SPACE)
            for _ in range(waiting + 1):
                yield last
            waiting = 0
        if last is None:
            raise InputError("No face was found in the driving film; wanted one that looks roughly into the camera.")


def _posed_rings(source: MeshSource, motion: Motion, vertices: Array) -> Array:
    """Ring vertices (R, 3) px for one frame: they follow the head's pose, and the jaw a little."""
    side = len(source.picture)
    turned = source.rings_in_head @ rotation_matrix(motion.pose)[0]
    posed = to_pixels(motion.scale[0] * turned + motion.shift[0], side)
    oval = list(FACE_OVAL)
    in_head = _rigid(source, motion, oval)
    unrigid = np.tile(vertices[oval] - in_head, (len(source.rings) // len(oval), 1))
    rings: Array = source.rings + source.follow[:, None] * (posed - source.rings) + source.jaw[:, None] * unrigid
    return rings


def _rigid(source: MeshSource, motion: Motion, points: list[int]) -> Array:
    """The photograph's landmarks as a rigid head in this motion's pose, px."""
    rest, side = source.rest, len(source.picture)
    in_square = to_square(source.landmarks[points], 0, 0, side)
    in_head = (in_square - rest.shift[0]) / rest.scale[0] @ rotation_matrix(rest.pose)[0].T
    return to_pixels(motion.scale[0] * (in_head @ rotation_matrix(motion.pose)[0]) + motion.shift[0], side)


def _warp(source: MeshSource, vertices: Array, origin: Array, rings: Array) -> Image:
    """The picture with its mesh moved from origin (468, 3) to vertices and rings."""
    side = len(source.picture)
    across = np.tile(np.arange(side, dtype=np.float32), (side, 1))
    flow = np.stack([across, across.T])
    for contour, socket in zip(EYE_CONTOURS, _EYE_SOCKETS, strict=True):
        _carry_eyeball(source, vertices, list(contour), list(socket), flow)
    target = np.concatenate([vertices, rings]).astype(np.float32)
    places = np.concatenate([origin, source.rings])[:, :2].astype(np.float32)
    backward_flow(target, places, source.triangles, flow, np.empty_like(across))
    map_x, map_y, edge = flow[0], flow[1], cv2.BORDER_REPLICATE
    warped = np.asarray(cv2.remap(source.picture, map_x, map_y, cv2.INTER_CUBIC, borderMode=edge), np.uint8)
    person = np.asarray(cv2.remap(source.person, map_x, map_y, cv2.INTER_LINEAR, borderMode=edge), np.float32)
    frame = np.empty_like(source.picture)
    composite(warped, person, source.picture, source.behind, flow, frame, STILL_PX)
    return frame


def _carry_eyeball(source: MeshSource, vertices: Array, contour: list[int], socket: list[int], flow: Array) -> None:
    """Inside the lids the eyeball's picture follows its socket; the lids are drawn over it."""
    low = np.maximum(np.floor(vertices[contour, :2].min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(vertices[contour, :2].max(0)).astype(int) + 2, len(source.picture))
    target = np.c_[vertices[socket, :2], np.ones(len(socket))]
    matrix = np.linalg.lstsq(target, source.landmarks[socket, :2], rcond=None)[0]
    if (high <= low).any() or np.abs(vertices[socket, :2] - source.landmarks[socket, :2]).max() < STILL_PX:
        return
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
    place = np.stack([x, y, np.ones_like(x)], -1) @ matrix
    flow[:, low[1] : high[1], low[0] : high[0]] = place.transpose(2, 0, 1)


def _part_lips(vertices: Array) -> Array:
    """Inner lips that would pass through one another meet half-way."""
    parted = vertices.copy()
    upper, lower = list(INNER_UPPER_LIP[1:-1]), list(INNER_LOWER_LIP[1:-1])
    crossed = np.maximum(parted[upper, 1] - parted[lower, 1], 0) / 2
    parted[upper, 1] -= crossed
    parted[lower, 1] += crossed
    return parted
