"""Assemble the engine that ships with the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdtalker.core.arrays import Image
from kdtalker.core.motion import MESH_SPACE, Motion
from kdtalker.core.protocols import Box, Engine, Openings, Speech, Square
from kdtalker.edits.transfer import start_from, transfer_relative
from kdtalker.face.portrait import Portrait, find_squares
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.mesh.renderer import MeshRenderer
from kdtalker.renderers.mesh.source import MeshSource
from kdtalker.weights.find import find


@dataclass(frozen=True)
class MeshEngine(Engine[MeshSource]):
    """Combine face mesh tracking, the Whisper encoder, the motion model and the mesh renderer. checkpoint: another
    motion model than the shipped one."""

    tracker: FaceTracker
    renderer: MeshRenderer
    checkpoint: Path | None = None

    @staticmethod
    def load(checkpoint: Path | None = None) -> MeshEngine:
        """Load the weights that ship with the package. Raises InputError where one is missing or damaged."""
        tracker = FaceTracker()
        return MeshEngine(tracker, MeshRenderer.load(tracker), checkpoint)

    def find_portrait(
        self, image: Image, *, face: int | None = None, box: Box | None = None, crop: bool = False, framing: str
    ) -> Portrait:
        """Find and crop a face; one crop serves both framings."""
        return Portrait.find(image, self.tracker, face=face, box=box, crop=crop)

    def find_faces(self, image: Image) -> list[Square]:
        return find_squares(image, self.tracker)

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        return self.renderer.track(frames)

    def load_speech(self) -> Speech:
        from kdtalker.diffusion.fir_smoothing import SteadyModel
        from kdtalker.diffusion.speech import load_trained

        encoder, model = load_trained(self.checkpoint or find("mesh_motion.safetensors"), MESH_SPACE)
        return Speech(encoder, SteadyModel(model))

    def start_from(self, motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
        return start_from(motion, rest=rest, first=first, frame=frame)

    def transfer(self, motion: Motion, *, first: Motion, rest: Motion) -> Motion:
        return transfer_relative(motion, first=first, rest=rest)

    def transfer_absolute(self, motion: Motion, *, rest: Motion) -> Motion:
        return motion

    def measure_openings(self, source: MeshSource, motion: Motion) -> Openings:
        return self.renderer.openings(source, motion)
