"""The embedded renderer: implicit keypoints to face mesh to backward flow to picture, on the CPU in real time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import MESH_SPACE, Motion, pose_of_rotation, rotation_matrix
from kdtalker.core.protocols import ExpressionModel, Openings
from kdtalker.edits.basic import turn_head
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.portrait import face_square
from kdtalker.face.tracker import FaceTracker, hold_last
from kdtalker.renderers.mesh.anatomy import expression_model
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square
from kdtalker.renderers.mesh.parts import EYES, MOUTH, Part, PhotographedPart, view
from kdtalker.renderers.mesh.pose_limits import iris_way, within_reach
from kdtalker.renderers.mesh.raster import backward_flow, composite, soften_edges, stand_still, tiles_that_move
from kdtalker.renderers.mesh.source import MeshSource, encode, resting_face
from kdtalker.renderers.mesh.topology import FACE_OVAL, INNER_LOWER_LIP, INNER_UPPER_LIP
from kdtalker.renderers.mesh.unet import Painter
from kdtalker.weights.find import find

BORDER_SHOWS_DEG = 5.0
MOVED_PX = 1.5  # from here on nothing of the unmoved photograph shines through
STILL_PX = 0.02  # a pixel that moves less is the photograph's own
TILES = 16  # a side: those in which nothing of the person moves are not warped


@dataclass(frozen=True)
class Maps:
    """What a frame is worked out in, kept for the next: flow (2, S, S) px back to the picture, depth (S, S), alpha
    (S, S) 0..1 of the person and warped (S, S, 3)."""

    flow: Array
    depth: Array
    alpha: Array
    warped: Image

    @staticmethod
    def of(side: int) -> Maps:
        flow, depth, alpha = (np.empty((*several, side, side), np.float32) for several in ((2,), (), ()))
        return Maps(flow, depth, alpha, np.empty((side, side, 3), np.uint8))


class MeshRenderer:
    """Draws portraits in the keypoint space "mesh"."""

    space = MESH_SPACE

    def __init__(
        self, tracker: FaceTracker, segmenter: LiteRTModel, model: FaceModel, painters: Mapping[Part, Painter]
    ) -> None:
        self._tracker, self._segmenter, self.model, self._painters = tracker, segmenter, model, painters

    @staticmethod
    def load(tracker: FaceTracker) -> MeshRenderer:
        """With the weights that ship with the package."""
        mouths, eyes = (Painter.load(find(f"mesh_{name}.safetensors")) for name in ("mouth", "eyes"))
        painters = {MOUTH: mouths, **dict.fromkeys(EYES, eyes)}
        return MeshRenderer(tracker, LiteRTModel("selfie_segmentation.tflite"), FaceModel.load(), painters)

    @cached_property
    def expression_model(self) -> ExpressionModel:
        return expression_model(self.model)

    def encode_source(self, face: Image) -> MeshSource:
        """(S, S, 3) RGB, one face roughly in the middle, to what `render` needs. Raises InputError without a face."""
        return encode(face, self._tracker, self._segmenter, self.model)

    def render(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        """One (S, S, 3) RGB frame for each of the motion's. Raises InputError for another keypoint space."""
        motion.require_space(self.space)
        return self._frames(source, motion)

    def _frames(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        """A frame is painted while the next one is warped."""
        motion, before, maps = within_reach(motion, source.rest), None, Maps.of(len(source.picture))
        with ThreadPoolExecutor(1) as beside:
            for frame in range(len(motion)):
                moment = motion[frame : frame + 1]
                picture, vertices, resting = self.warp(source, moment, maps)
                views = [
                    (part, appears, view(part.part, picture, vertices, resting))
                    for part, appears in zip(source.parts, self.appear(source, moment), strict=True)
                    if appears
                ]
                painted = beside.submit(self._paint, picture, resting, views)
                if before:
                    yield before.result()
                before = painted
            if before:
                yield before.result()

    def _paint(self, picture: Image, resting: Array, views: Sequence[tuple[PhotographedPart, float, Image]]) -> Image:
        for part, appears, seen in views:
            part.repaint(picture, seen, resting, appears, self._painters[part.part].paint)
        return picture

    def appear(self, source: MeshSource, motion: Motion) -> list[float]:
        """How much of each part's painting shows in one frame (T = 1), 0..1: what matters is how the face has moved,
        not where the head is."""
        rest = source.rest
        vertices = self._vertices(source, replace(turn_head(motion, rest.pose), scale=rest.scale, shift=rest.shift))
        return [part.appears(vertices) for part in source.parts]

    def shape(self, source: MeshSource, motion: Motion) -> tuple[Array, Array]:
        """The mesh (468, 3) px of one frame (T = 1), and that with its face at rest."""
        resting = resting_face(self.model, source.identity, motion, len(source.picture))
        return self._vertices(source, motion), resting

    def _vertices(self, source: MeshSource, motion: Motion) -> Array:
        side = len(source.picture)
        vertices = to_pixels(self.model.pose_vertices(source.identity, motion)[0], side)
        if source.held.any():
            unmoved = replace(motion, expression=turn_head(source.rest, motion.pose).expression)
            stiff = to_pixels(self.model.pose_vertices(source.identity, unmoved)[0], side)
            vertices += source.held[:, None] * (stiff - vertices)
        return _lips_meet(vertices)

    def warp(self, source: MeshSource, motion: Motion, maps: Maps | None = None) -> tuple[Image, Array, Array]:
        """One frame (T = 1) before anything is painted, (S, S, 3), with its mesh and that with the face at rest. maps:
        room to work in."""
        maps = maps or Maps.of(len(source.picture))
        vertices, resting = self._flow(source, motion, maps)
        return _warp(source, maps), vertices, resting

    def _flow(self, source: MeshSource, motion: Motion, maps: Maps) -> tuple[Array, Array]:
        """Compute the backward flow of one frame (T = 1) into maps; returns its mesh and that with the face at rest."""
        vertices, resting = self.shape(source, motion)
        drawn, places = source.lids.move(vertices)
        places[:, :2] += _turned(source, motion) * (source.within - source.landmarks)[:, :2]
        rings, look = _posed_rings(source, motion, drawn), iris_way(motion, len(source.picture))[0]
        stand_still(maps.flow, maps.depth)
        source.lids.carry_eyeballs(drawn, maps.flow, STILL_PX, look)
        target = np.concatenate([drawn, rings]).astype(np.float32)
        origin = np.concatenate([places, source.rings])[:, :2].astype(np.float32)
        backward_flow(target, origin, source.triangles, maps.flow, maps.depth)
        return vertices, resting

    def isolate(self, source: MeshSource, foreground: Image) -> MeshSource:
        """Replace the source image (S, S, 3) by its foreground colours, so that no frame shows the background."""
        return replace(source, picture=foreground, behind=foreground)

    def matte(self, source: MeshSource, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Warp the source's alpha matte (S, S) 0..1 by the flow of one frame (T = 1) that was drawn as `face`."""
        maps = Maps.of(len(source.picture))
        self._flow(source, within_reach(motion, source.rest), maps)
        warped = cv2.remap(matte, maps.flow[0], maps.flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return face, np.asarray(warped, np.float32)

    def openings(self, source: MeshSource, motion: Motion) -> Openings:
        """Measure how far mouth and eyes are open in each frame, in the units of the tracker."""
        vertices = self.model.pose_vertices(source.identity, motion)
        return Openings(eyes=eye_opening(vertices), lips=mouth_opening(vertices))

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """The motion of a film's face, one frame a piece: the largest face of the first frame that has one, in the
        square around it; where it is lost it rests, which is logged. Raises InputError for a film without a face."""
        identity = None
        for face in hold_last(self._tracker.follow_driving(frames)):
            if identity is None:
                square = face_square(face)
                canonical = self.model.fit(to_square(face.landmarks, *square))[3]
                identity = canonical - self.model.spreads @ self.model.resting_offset(canonical)
            scale, rotation, shift, canonical = self.model.fit(to_square(face.landmarks, *square))
            expression = self.model.offsets(canonical[None], identity) @ rotation
            yield Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], expression, MESH_SPACE)


def _posed_rings(source: MeshSource, motion: Motion, vertices: Array) -> Array:
    """Ring vertices (R, 3) px for one frame: they follow the head's pose, and the jaw a little."""
    side = len(source.picture)
    turned = source.rings_in_head @ rotation_matrix(motion.pose)[0]
    turn_head = to_pixels(motion.scale[0] * turned + motion.shift[0], side)
    oval = list(FACE_OVAL)
    in_head = _rigid(source, motion, oval)
    unrigid = np.tile(vertices[oval] - in_head, (len(source.rings) // len(oval), 1))
    rings: Array = source.rings + source.follow[:, None] * (turn_head - source.rings) + source.jaw[:, None] * unrigid
    return rings


def _rigid(source: MeshSource, motion: Motion, points: list[int]) -> Array:
    """The photograph's landmarks as a rigid head in this motion's pose, px."""
    rest, side = source.rest, len(source.picture)
    in_square = to_square(source.landmarks[points], 0, 0, side)
    in_head = (in_square - rest.shift[0]) / rest.scale[0] @ rotation_matrix(rest.pose)[0].T
    return to_pixels(motion.scale[0] * (in_head @ rotation_matrix(motion.pose)[0]) + motion.shift[0], side)


def _turned(source: MeshSource, motion: Motion) -> float:
    """0 in the photograph's pose to 1 where the head has turned so far that its border would show."""
    yaw, pitch, _ = motion.pose[0] - source.rest.pose[0]
    return float(np.clip(np.hypot(yaw, pitch) / BORDER_SHOWS_DEG, 0, 1))


def _warp(source: MeshSource, maps: Maps) -> Image:
    """The picture under the flow in maps."""
    side, flow = len(source.picture), maps.flow
    cv2.remap(source.person, flow[0], flow[1], cv2.INTER_LINEAR, dst=maps.alpha, borderMode=cv2.BORDER_REPLICATE)
    _warp_tiles(source, maps)
    frame = np.empty_like(source.picture)
    composite(maps.warped, maps.alpha, source.picture, source.behind, flow, frame, STILL_PX, MOVED_PX)
    soften_edges(frame, flow, np.empty((side * side // 8, 2), np.int32), np.empty((side * side // 8, 3), np.uint8))
    return frame


def _warp_tiles(source: MeshSource, maps: Maps) -> None:
    """The picture under the flow, in the tiles where the person moves, and between them in their row; the rest is left
    as it is, for most of a film's pixels are background and shoulders, and a bicubic pixel is what costs most."""
    tile = -(-len(maps.alpha) // TILES)
    moves = np.empty((TILES, TILES), np.bool_)
    tiles_that_move(maps.flow, maps.alpha, STILL_PX, tile, moves)
    for row in np.flatnonzero(moves.any(1)):
        columns = np.flatnonzero(moves[row])
        area = np.s_[row * tile : (row + 1) * tile, columns[0] * tile : (columns[-1] + 1) * tile]
        ways = maps.flow[0][area], maps.flow[1][area]
        maps.warped[area] = cv2.remap(source.picture, *ways, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _lips_meet(vertices: Array) -> Array:
    """Inner lips that would pass through one another meet half-way."""
    met = vertices.copy()
    upper, lower = list(INNER_UPPER_LIP[1:-1]), list(INNER_LOWER_LIP[1:-1])
    crossed = np.maximum(met[upper, 1] - met[lower, 1], 0) / 2
    met[upper, 1] -= crossed
    met[lower, 1] += crossed
    return met
