"""Make training pairs of the shading network by self-reenactment: the area around a mouth, warped from some frames of a
film into others, beside the real one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.edits.transfer import transfer_relative
from kdtalker.face.landmarks import mouth_opening, outer_eye_distance
from kdtalker.face.portrait import Portrait
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.mouth.frame import INNER_LIPS, STEADY
from kdtalker.renderers.mesh.mouth.shading import crop_mask
from kdtalker.renderers.mesh.mouth.source import trace_opening
from kdtalker.renderers.mesh.renderer import MeshRenderer
from kdtalker.renderers.mesh.source import MeshSource
from kdtalker.renderers.mesh.warp import WarpBuffers
from train.data.cache import load_records
from train.data.films import Film

LEAST_EYES_PX = 40  # faces with less distance between the eyes' centres are left out
MOST_FRAMES = 250  # of a film are tracked
SOURCE_QUANTILES = (0.1, 0.5, 0.9)  # of the mouth's opening: source frames beside the first frame
PAIRS_A_SOURCE = 26  # warped from each source frame
LARGEST_ERROR = 0.06  # pairs whose mouth lies elsewhere by more outer-eye distances than this are left out
LEAST_PAIRS = 10  # a film with fewer is left out

Row = tuple[Image, NDArray[np.uint8], NDArray[np.float16], Image]


@dataclass(frozen=True)
class ShadingPairs:
    """Hold the pairs of one film: warped (N, SIDE_PX, SIDE_PX, 3), opening (N, SIDE_PX, SIDE_PX) masks of 0..255,
    displacement (N, 2, SIDE_PX, SIDE_PX) px, real (N, SIDE_PX, SIDE_PX, 3) and width_px of the mouth."""

    warped: NDArray[np.uint8]
    opening: NDArray[np.uint8]
    displacement: NDArray[np.float16]
    real: NDArray[np.uint8]
    width_px: float
    split: str


@dataclass(frozen=True)
class TrackedFilm:
    """Hold frames (H, W, 3) of a film and the motion of its face."""

    frames: list[Image]
    motion: Motion


class ShadingPairMaker:
    """Make the pairs of films."""

    def __init__(self) -> None:
        self._tracker = FaceTracker()
        self._renderer = MeshRenderer.load(self._tracker)

    def pairs(self, film: Film, rng: np.random.Generator) -> ShadingPairs:
        """Track a film and warp its mouths; its frames are held in memory. Raises InputError where it has no usable
        face."""
        frames = list(itertools.islice(read_video(film.path), MOST_FRAMES))
        eyes_px = max((face.eye_distance_px for face in self._tracker.find(frames[0])), default=0.0)
        if eyes_px < LEAST_EYES_PX:
            raise InputError(f"'{film.name}': its eyes are {eyes_px:.0f} px apart, wanted {LEAST_EYES_PX}.")
        motion = Motion.concatenate(list(self._renderer.track(iter(frames))))
        tracked = TrackedFilm(frames, motion)
        canvas, first = self._encode(frames[0])
        order = np.argsort(mouth_opening(self._renderer.model.pose_vertices(first.identity, motion)))
        numbers = {int(order[int(share * (len(order) - 1))]) for share in SOURCE_QUANTILES} - {0}
        rows = list(self._rows(tracked, 0, first, canvas, rng))
        for number in sorted(numbers):
            try:
                canvas, source = self._encode(frames[number])
            except InputError:  # the face is lost in this frame
                continue
            rows += list(self._rows(tracked, number, source, canvas, rng))
        if len(rows) < LEAST_PAIRS:
            raise InputError(f"'{film.name}': {len(rows)} frames were warped well enough, wanted {LEAST_PAIRS}.")
        warped, opening, displacement, real = (np.stack(values) for values in zip(*rows, strict=True))
        return ShadingPairs(warped, opening, displacement, real, first.mouth.width_px, film.split)

    def _encode(self, frame: Image) -> tuple[Portrait, MeshSource]:
        """Encode a frame as a source image. Raises InputError where it has no face."""
        canvas = Portrait.find(frame, self._tracker)
        return canvas, self._renderer.encode_source(canvas.face)

    def _rows(
        self, film: TrackedFilm, number: int, source: MeshSource, canvas: Portrait, rng: np.random.Generator
    ) -> Iterator[Row]:
        """Warp a source image, frame `number` of a film, to other frames, and crop them beside the real ones."""
        frames, motion = film.frames, film.motion
        moved = transfer_relative(motion, first=motion[number : number + 1], rest=source.rest)
        buffers = WarpBuffers.of(len(source.picture))
        for at in rng.choice(len(frames), min(PAIRS_A_SOURCE, len(frames)), replace=False):
            real = Portrait(frames[at], canvas.left, canvas.top, canvas.side).face
            faces = self._tracker.find(real)
            if not faces:
                continue
            warped = self._renderer.warp(source, moved[at : at + 1], buffers)
            off = faces[0].landmarks[:, :2] - warped.vertices[:, :2]
            shift = off[[*INNER_LIPS, *STEADY]].mean(0)
            if np.linalg.norm(shift) > LARGEST_ERROR * outer_eye_distance(faces[0].landmarks):
                continue
            crop, opening = warped.crop, trace_opening(warped.vertices)
            mask = np.round(255 * crop_mask(crop, opening)).astype(np.uint8)
            displacement = warped.displacement.astype(np.float16)
            yield crop.sample(warped.picture), mask, displacement, crop.translate(shift).sample(real)


def load_pairs(films: list[Film], folder: Path) -> list[ShadingPairs]:
    """Load the pairs of all usable films; missing ones are made first and kept in `folder`.

    Raises InputError where no film is usable, OutputError where the disk is full."""
    return load_records(ShadingPairs, films, folder, lambda: ShadingPairMaker().pairs, "shading")
