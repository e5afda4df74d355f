"""Assemble the engine that ships with the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdtalker.core.arrays import Image
from kdtalker.core.motion import MESH_SPACE, Motion
from kdtalker.core.protocols import Box, Engine, Openings, Speech, Square
from kdtalker.diffusion.causal.personal import check_share
from kdtalker.edits.transfer import start_from, transfer_relative
from kdtalker.face.portrait import Portrait, find_squares
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.mesh.renderer import MeshRenderer
from kdtalker.renderers.mesh.source import MeshSource


@dataclass(frozen=True)
class MeshEngine(Engine[MeshSource]):
    """Combine face mesh tracking, the Whisper encoder, the motion model and the mesh renderer. checkpoint: another
    motion model than the shipped one; personal: how much like the person that it holds, 0..1."""

    tracker: FaceTracker
    renderer: MeshRenderer
    checkpoint: Path | None = None
    personal: float | None = None

    @staticmethod
    def load(checkpoint: Path | None = None, personal: float | None = None) -> MeshEngine:
        """Load the weights that ship with the package; personal: how much like the person of the checkpoint, 0..1.
        Raises InputError where one is missing or damaged, and for a dial that cannot be."""
        check_share(checkpoint, personal)
        tracker = FaceTracker()
        return MeshEngine(tracker, MeshRenderer.load(tracker), checkpoint, personal)

    def find_portrait(
        self,
        image: Image,
        *,
        face: int | None = None,
        box: Box | None = None,
        crop: bool = False,
        max_side: int,
        framing: str,
    ) -> Portrait:
        """Find and crop a face, as `Portrait.find`; both framings have the same crop. Raises InputError."""
        return Portrait.find(image, self.tracker, face=face, box=box, crop=crop, max_side=max_side)

    def find_faces(self, image: Image) -> list[Square]:
        """Find the square crops of all faces, by falling size. Raises InputError where there is none."""
        return find_squares(image, self.tracker)

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """Track one face through a driving video; see `MeshRenderer.track`."""
        return self.renderer.track(frames)

    def load_speech(self) -> Speech:
        """Load the speech models of the package, or those of the checkpoint. Raises InputError."""
        from kdtalker.diffusion.speech import load_shipped, load_speech

        return load_speech(self.checkpoint, MESH_SPACE, personal=self.personal) if self.checkpoint else load_shipped()

    def start_from(self, motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
        """Fade generated motion in from the source's own; see `edits.transfer.start_from`."""
        return start_from(motion, rest=rest, first=first, frame=frame)

    def transfer(self, motion: Motion, *, first: Motion, rest: Motion) -> Motion:
        """Transfer driving motion relative to its first frame; see `edits.transfer.transfer_relative`."""
        return transfer_relative(motion, first=first, rest=rest)

    def transfer_absolute(self, motion: Motion, *, rest: Motion) -> Motion:
        """Return the motion unchanged: pose and expression are absolute in this space."""
        return motion

    def measure_openings(self, source: MeshSource, motion: Motion) -> Openings:
        """Measure how far mouth and eyes are open in T frames, in the units of the tracker."""
        return self.renderer.measure_openings(source, motion)
