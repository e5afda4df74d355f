"""Render frames on the CPU in real time: implicit keypoints to face mesh to backward flow to picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import MESH_SPACE, Motion, pose_of_rotation
from kdtalker.core.protocols import ExpressionModel, Openings
from kdtalker.core.threads import Prefetch
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.litert import LiteRTModel
from kdtalker.face.portrait import face_square
from kdtalker.face.tracker import FaceTracker, hold_last
from kdtalker.renderers.mesh.anatomy import build_expression_model
from kdtalker.renderers.mesh.eyes.painter import EyePainter
from kdtalker.renderers.mesh.eyes.parts import EYES, Part, make_view
from kdtalker.renderers.mesh.geometry import FaceModel, to_square
from kdtalker.renderers.mesh.head.mirror import mirror_side
from kdtalker.renderers.mesh.head.pose_limits import limit_pose
from kdtalker.renderers.mesh.mouth.networks import MouthNetworks
from kdtalker.renderers.mesh.mouth.shading import crop_around, measure_displacement
from kdtalker.renderers.mesh.mouth.source import WarpedFrame
from kdtalker.renderers.mesh.pose import PartWeights, PosedFrame, blend_weights, deform_mesh, pose_frames
from kdtalker.renderers.mesh.source import MeshSource, encode_source
from kdtalker.renderers.mesh.warp import WarpBuffers, compute_flow, find_columns, warp_matte, warp_picture
from kdtalker.weights.find import find

POSED_AT_ONCE = 32  # frames whose meshes are posed together, so that numpy is called less often


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

    def render(self, source: MeshSource, motion: Motion, *, paint_mouth: bool = True) -> Iterator[Image]:
        """Render one frame (S, S, 3) RGB for each of the motion's. paint_mouth: False leaves out the networks that
        draw the mouth, which is faster. Raises InputError for another keypoint space and for numbers that no motion
        has."""
        motion.require_space(self.space)
        motion.require_plausible("The motion")
        return self._frames(source, motion, paint_mouth)

    def _frames(self, source: MeshSource, motion: Motion, paint_mouth: bool) -> Iterator[Image]:
        """Refine the parts of one frame while the next one is warped in a thread."""
        with Prefetch(self._warped(source, limit_pose(motion, source.rest)), 1) as warped:
            for frame, weights in warped:
                yield self._refine(source, frame, weights if paint_mouth else replace(weights, shading=0.0, inside=0.0))

    def _warped(self, source: MeshSource, motion: Motion) -> Iterator[tuple[WarpedFrame, PartWeights]]:
        buffers = WarpBuffers.of(len(source.picture))
        for posed, weights in self._pose(source, motion):
            yield self._warp(source, posed, buffers), weights

    def _pose(self, source: MeshSource, motion: Motion) -> Iterator[tuple[PosedFrame, PartWeights]]:
        for start in range(0, len(motion), POSED_AT_ONCE):
            piece = motion[start : start + POSED_AT_ONCE]
            yield from zip(
                pose_frames(self.model, source, piece), blend_weights(self.model, source, piece), strict=True
            )

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
        """Compute the weights of the parts in one frame (T = 1)."""
        (weights,) = blend_weights(self.model, source, motion)
        return weights

    def deform_mesh(self, source: MeshSource, motion: Motion) -> tuple[Array, Array]:
        """Pose the mesh (468, 3) px of one frame (T = 1); returns it with the same of a neutral expression."""
        (vertices,), (resting,) = deform_mesh(self.model, source, motion)
        return vertices, resting

    def warp(self, source: MeshSource, motion: Motion, buffers: WarpBuffers | None = None) -> WarpedFrame:
        """Warp the source image to one frame (T = 1) before its parts are refined. buffers: reused between frames."""
        (posed,) = pose_frames(self.model, source, motion)
        return self._warp(source, posed, buffers or WarpBuffers.of(len(source.picture)))

    @staticmethod
    def _warp(source: MeshSource, posed: PosedFrame, buffers: WarpBuffers) -> WarpedFrame:
        mouth = source.mouth.frame(posed.resting)
        crop = crop_around(mouth)
        columns = find_columns(source, posed, crop.bounds(len(source.picture)))
        compute_flow(source, posed, columns, buffers)
        picture = warp_picture(source, posed, columns, buffers)
        source.lids.draw(picture, posed.lids)
        source.lips.draw_line(picture, posed.vertices, posed.closing)
        displacement = measure_displacement(buffers.flow, crop, source.mouth.crop)
        return WarpedFrame(picture, posed.vertices, posed.resting, mouth, displacement)

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
        (posed,) = pose_frames(self.model, source, limit_pose(motion, source.rest))
        return face, warp_matte(source, posed, matte)

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
