"""Render frames on the CPU in real time: implicit keypoints to face mesh to backward flow to picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import MESH_SPACE, Motion, pose_of_rotation, rotation_matrix
from kdtalker.core.protocols import ExpressionModel, Openings
from kdtalker.edits.basic import turn_head
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.portrait import face_square
from kdtalker.face.tracker import FaceTracker, hold_last
from kdtalker.renderers.mesh.anatomy import build_expression_model
from kdtalker.renderers.mesh.eyes.painter import EyePainter
from kdtalker.renderers.mesh.eyes.parts import EYES, Part, make_view
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square
from kdtalker.renderers.mesh.head.mirror import mirror_side
from kdtalker.renderers.mesh.head.pose_limits import limit_pose
from kdtalker.renderers.mesh.mouth.networks import MouthNetworks
from kdtalker.renderers.mesh.mouth.source import WarpedFrame
from kdtalker.renderers.mesh.source import MeshSource, encode_source, neutral_mesh
from kdtalker.renderers.mesh.warp import WarpBuffers, compute_flow, separate_lips, warp_matte, warp_picture
from kdtalker.weights.find import find


@dataclass(frozen=True)
class PartWeights:
    """Hold the weights 0..1 in one frame: shading of the ratio image around the mouth, inside of what is drawn in the
    mouth, eyes (right, left) of the network that refines lids."""

    shading: float
    inside: float
    eyes: tuple[float, ...]


class MeshRenderer:
    """Render portraits in the keypoint space "mesh". Stateless; eyes: the U-Net that refines each lid; mouth: the
    networks that draw it."""

    space = MESH_SPACE

    def __init__(
        self,
        tracker: FaceTracker,
        segmenter: LiteRTModel,
        model: FaceModel,
        eyes: Mapping[Part, EyePainter],
        mouth: MouthNetworks,
    ) -> None:
        self._tracker, self._segmenter, self.model = tracker, segmenter, model
        self._eyes, self._mouth = eyes, mouth

    @staticmethod
    def load(tracker: FaceTracker) -> MeshRenderer:
        """Load the weights that ship with the package. Raises InputError where one is missing or damaged."""
        eyes = dict.fromkeys(EYES, EyePainter.load(find("mesh_eyes.safetensors")))
        return MeshRenderer(
            tracker, LiteRTModel("selfie_segmentation.tflite"), FaceModel.load(), eyes, MouthNetworks.load()
        )

    @cached_property
    def expression_model(self) -> ExpressionModel:
        """Compute the semantics of the keypoint space once."""
        return build_expression_model(self.model)

    def encode_source(self, face: Image) -> MeshSource:
        """Encode a face crop (S, S, 3) RGB, one face near its centre. Raises InputError where there is none."""
        return encode_source(face, self._tracker, self._segmenter, self.model, self._mouth.interior)

    def render(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        """Render one frame (S, S, 3) RGB for each of the motion's. Raises InputError for another keypoint space."""
        motion.require_space(self.space)
        return self._frames(source, motion)

    def _frames(self, source: MeshSource, motion: Motion) -> Iterator[Image]:
        """Refine the parts of one frame in a thread while the next one is warped."""
        motion, before, buffers = limit_pose(motion, source.rest), None, WarpBuffers.of(len(source.picture))
        with ThreadPoolExecutor(1) as executor:
            for frame in range(len(motion)):
                moment = motion[frame : frame + 1]
                warped, weights = self.warp(source, moment, buffers), self.blend_weights(source, moment)
                refined = executor.submit(self._refine, source, warped, weights)
                if before:
                    yield before.result()
                before = refined
            if before:
                yield before.result()

    def _refine(self, source: MeshSource, warped: WarpedFrame, weights: PartWeights) -> Image:
        picture, resting = warped.picture, warped.resting
        for part, weight in zip(source.parts, weights.eyes, strict=True):
            if weight:
                view = make_view(part.part, picture, warped.vertices, resting)
                part.repaint(picture, view, resting, weight, self._eyes[part.part].paint)
        if weights.shading:
            source.mouth.shade(warped, weights.shading, self._mouth.shading)
        if weights.inside:
            source.mouth.paint(warped, weights.inside, self._mouth.interior)
        return picture

    def blend_weights(self, source: MeshSource, motion: Motion) -> PartWeights:
        """Compute the weights of the parts in one frame (T = 1), from its expression alone: the mesh is compared with
        the source's in the source's own pose."""
        rest, mouth = source.rest, source.mouth
        vertices = self._pose_mesh(source, replace(turn_head(motion, rest.pose), scale=rest.scale, shift=rest.shift))
        eyes = tuple(part.blend_weight(vertices) for part in source.parts)
        return PartWeights(mouth.shading_weight(vertices), mouth.blend_weight(vertices), eyes)

    def deform_mesh(self, source: MeshSource, motion: Motion) -> tuple[Array, Array]:
        """Pose the mesh (468, 3) px of one frame (T = 1); returns it with the same of a neutral expression."""
        side = len(source.picture)
        resting = neutral_mesh(self.model, source.identity, motion, side)
        resting += _displace(source.lips.residual, motion, side)
        return self._pose_mesh(source, motion), resting

    def _pose_mesh(self, source: MeshSource, motion: Motion) -> Array:
        side = len(source.picture)
        vertices = to_pixels(self.model.pose_vertices(source.identity, motion)[0], side)
        if source.stiffness.any():
            unmoved = replace(motion, expression=turn_head(source.rest, motion.pose).expression)
            rigid = to_pixels(self.model.pose_vertices(source.identity, unmoved)[0], side)
            vertices += source.stiffness[:, None] * (rigid - vertices)
        if closing := source.lips.closing(motion):
            vertices += closing * _displace(source.lips.residual, motion, side)
        return separate_lips(vertices, source.landmarks)

    def warp(self, source: MeshSource, motion: Motion, buffers: WarpBuffers | None = None) -> WarpedFrame:
        """Warp the source image to one frame (T = 1) before its parts are refined. buffers: reused between frames."""
        buffers = buffers or WarpBuffers.of(len(source.picture))
        vertices, resting = self.deform_mesh(source, motion)
        closed = source.lids.close(vertices)
        compute_flow(source, motion, closed, buffers)
        picture = warp_picture(source, motion, vertices, buffers)
        source.lids.draw(picture, closed)
        source.lips.draw_line(picture, vertices, source.lips.closing(motion))
        displacement = source.mouth.measure_displacement(buffers.flow, resting)
        return WarpedFrame(picture, vertices, resting, displacement)

    def isolate(self, source: MeshSource, foreground: Image) -> MeshSource:
        """Replace the source image (S, S, 3) by its foreground colours, so that no frame shows the background."""
        isolated = replace(source, picture=foreground, background=foreground)
        if source.mirrored is None:
            return isolated
        landmarks, texture, rest = source.landmarks, source.texture, source.rest
        mirrored = mirror_side(
            foreground, source.person, landmarks=landmarks, texture=texture, rest=rest, mean=self.model.mean
        )
        return replace(isolated, mirrored=mirrored)

    def matte(self, source: MeshSource, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Warp the source's alpha matte (S, S) 0..1 by the flow of one frame (T = 1) that was drawn as `face`."""
        buffers, motion = WarpBuffers.of(len(source.picture)), limit_pose(motion, source.rest)
        compute_flow(source, motion, source.lids.close(self._pose_mesh(source, motion)), buffers)
        return face, warp_matte(matte, buffers)

    def measure_openings(self, source: MeshSource, motion: Motion) -> Openings:
        """Measure how far mouth and eyes are open in each frame, in the units of the tracker."""
        vertices = self.model.pose_vertices(source.identity, motion)
        return Openings(eyes=eye_opening(vertices), lips=mouth_opening(vertices))

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """Track the face of a driving video in the square around its first face: one motion (T = 1) a frame. Frames in
        which it is lost repeat the last one, which is logged. Raises InputError for a video without a face."""
        identity = None
        for face in hold_last(self._tracker.follow_driving(frames)):
            if identity is None:
                square = face_square(face)
                canonical = self.model.fit(to_square(face.landmarks, *square))[3]
                identity = canonical - self.model.spreads @ self.model.resting_offset(canonical)
            scale, rotation, shift, canonical = self.model.fit(to_square(face.landmarks, *square))
            expression = self.model.offsets(canonical[None], identity) @ rotation
            yield Motion(scale[None], pose_of_rotation(rotation[None]), shift[None], expression, MESH_SPACE)


def _displace(offsets: Array, motion: Motion, side: int) -> Array:
    """Pose vertex offsets (468, 3) in canonical units by a motion (T = 1): px."""
    posed: Array = side / 2 * motion.scale[0] * (offsets @ rotation_matrix(motion.pose)[0])
    return posed
