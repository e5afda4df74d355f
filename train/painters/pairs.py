"""Make training pairs of painters by self-reenactment: parts of a film's face, warped from some of its frames into
others, beside the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.edits.transfer import transfer_relative
from kdtalker.face.landmarks import outer_eye_distance
from kdtalker.face.portrait import Portrait
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.eyes.parts import Crop, Part, make_view
from kdtalker.renderers.mesh.renderer import MeshRenderer
from kdtalker.renderers.mesh.source import MeshSource
from train.data.cache import load_records
from train.data.films import Film

LEAST_EYES_PX = 40  # faces with less distance between the eyes' centres are left out
GOOD_EYES_PX = 90  # faces with this distance between the eyes' centres or more get full weight
SOURCE_EVERY_S, MOST_SOURCES = 2.5, 12  # one source frame for so many seconds of film, and at most so many
LARGEST_ERROR = 0.05  # pairs whose warped part misses the real one by more outer-eye distances are left out
MOST_FRAMES = 700  # about so many frames of one film become pairs
UNMOVED_SHARE = 0.15  # this share is kept of frames in which the part stands as in the source frame

Pictures = NDArray[np.uint8]
Sources = dict[int, tuple[Portrait, MeshSource]]  # source frames by frame number
PairRow = tuple[int, Pictures, Pictures, float]  # which source view, warped view, real part, appears


@dataclass(frozen=True)
class Pairs:
    """Hold the pairs of one film: photographed (K, side, side, 6), views of its source frames; which (N,), the view
    that was warped; warped (N, side, side, 6); real (N, side, side, 3); appears (N,), opacity of the painting; eyes_px,
    distance of the eyes."""

    photographed: Pictures
    which: NDArray[np.int64]
    warped: Pictures
    real: Pictures
    appears: NDArray[np.float32]
    eyes_px: float
    split: str


class PairMaker:
    """Make the pairs of films for parts that share one painter."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts, self._tracker = parts, FaceTracker()
        self._renderer = MeshRenderer.load(self._tracker)

    def pairs(self, film: Film, rng: np.random.Generator) -> Pairs:
        """Track a film and warp its parts. Raises InputError where it has no usable face."""
        motions = list(self._renderer.track(read_video(film.path)))
        motion = Motion.concatenate(motions)
        count = int(np.clip(len(motion) / 25 / SOURCE_EVERY_S, 3, MOST_SOURCES))
        chosen = np.sort(rng.choice(len(motion), min(count, len(motion)), replace=False))
        sources, eyes_px = self._sources(film, chosen)
        if eyes_px < LEAST_EYES_PX:
            raise InputError(f"'{film.name}': its eyes are {eyes_px:.0f} px apart, wanted {LEAST_EYES_PX}.")
        rows = list(self._rows(film, motion, sources, rng))
        if not rows:
            raise InputError(f"'{film.name}': no frame was warped well enough.")
        which, warped, real, appears = zip(*rows, strict=True)
        photographed = [part for _, source in sources.values() for part in source.parts if part.part in self._parts]
        return Pairs(
            np.stack([part.view for part in photographed]),
            np.array(which),
            np.stack(warped),
            np.stack(real),
            np.array(appears, np.float32),
            eyes_px,
            film.split,
        )

    def _sources(self, film: Film, chosen: NDArray[np.int64]) -> tuple[Sources, float]:
        sources: Sources = {}
        eyes = []
        wanted = set(chosen.tolist())
        for number, frame in enumerate(read_video(film.path)):
            if number not in wanted:
                continue
            faces = self._tracker.find(frame)
            if not faces:
                continue
            try:
                canvas = Portrait.find(frame, self._tracker)
                sources[number] = canvas, self._renderer.encode_source(canvas.face)
            except InputError:
                continue
            eyes.append(faces[0].eye_distance_px)
        if not sources:
            raise InputError(f"'{film.name}': no face was found.")
        return sources, float(np.median(eyes))

    def _rows(self, film: Film, motion: Motion, sources: Sources, rng: np.random.Generator) -> Iterator[PairRow]:
        keep = min(1.0, MOST_FRAMES / len(motion))
        numbers, face = list(sources), None
        for at, frame in enumerate(read_video(film.path)):
            if at >= len(motion):
                return
            face = self._tracker.follow(frame, face)
            if face is None or rng.random() > keep:
                continue
            chosen = int(rng.integers(len(numbers)))
            canvas, source = sources[numbers[chosen]]
            first = motion[numbers[chosen] : numbers[chosen] + 1]
            moved = transfer_relative(motion[at : at + 1], first=first, rest=source.rest)
            mesh = self._renderer.deform_mesh(source, moved)
            shown = zip(source.parts, self._renderer.blend_weights(source, moved).eyes, strict=True)
            parts = [(part, appears) for part, appears in shown if part.part in self._parts]
            if rng.random() > max(UNMOVED_SHARE, *(appears for _, appears in parts), 0):
                continue
            warped = self._renderer.warp(source, moved)
            square = Portrait(frame, canvas.left, canvas.top, canvas.side).face
            for number, (part, appears) in enumerate(parts):
                points = list({*part.part.inside[0], *part.part.inside[1]})
                off = face.landmarks[points, :2] - (canvas.left, canvas.top) - mesh[0][points, :2]
                if np.linalg.norm(off, axis=1).mean() > LARGEST_ERROR * outer_eye_distance(face.landmarks):
                    continue
                yield (
                    chosen * len(parts) + number,
                    make_view(part.part, warped.picture, warped.vertices, warped.resting),
                    Crop.of(part.part, warped.resting).translate(off.mean(0)).sample(square),
                    appears,
                )


def load_pairs(films: list[Film], parts: tuple[Part, ...], folder: Path) -> list[Pairs]:
    """Load the pairs of all usable films; missing ones are made first and kept in `folder`.

    Raises InputError where no film is usable, OutputError where the disk is full."""
    return load_records(Pairs, films, folder, lambda: PairMaker(parts).pairs, "a painter")
