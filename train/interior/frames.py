"""Cut the mouths of films into the mouth's frame, in which the skull stands still."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.face.landmarks import mouth_opening
from kdtalker.face.tracker import Face, FaceTracker
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel, to_pixels, to_square
from kdtalker.renderers.mesh.mouth.frame import INNER_LIPS, ORIGIN, STEADY, LipShape, MouthFrame, frame_aspect
from kdtalker.renderers.mesh.mouth.source import mean_colours, sample_frame
from kdtalker.renderers.mesh.topology import INNER_UPPER_LIP
from train.data.cache import load_records
from train.data.films import Film

LEAST_EYES_PX = 38  # faces with less distance between the eyes' centres are left out
MOST_FRAMES = 420  # of a film are tracked
KEPT_FRAMES = 110  # of them are kept, open mouths first
OPEN_SHARE, SHUT_SHARE = 0.3, 0.12  # opening, of the film's widest, from which a mouth is open; share kept of shut ones
LEAST_OPENING = 0.04  # widest opening of a film that can teach, in outer-eye distances
COLOURS_EVERY = 6  # every sixth kept frame tells the colours of skin and lips


@dataclass(frozen=True)
class MouthFrames:
    """Hold the mouths of one film: pictures (N, HEIGHT_PX, WIDTH_PX, 3), points (N, 20, 2) px of the inner lips, chin
    (N, 2) px, its motion, and normal (N, 2), as `LipShape.of` takes them; colour (6,), width_px of the mouth;
    is_mirrored: flipped horizontally."""

    pictures: NDArray[np.uint8]
    points: Array
    chin: Array
    normal: Array
    colour: Array
    width_px: float
    split: str
    is_mirrored: bool = False

    def lip_shape(self, at: int) -> LipShape:
        """Describe the lips of one frame."""
        return LipShape.of(self.points[at], self.chin[at], self.normal[at])

    def mirror(self) -> MouthFrames:
        """Flip the frames horizontally (data augmentation): another person's mouth."""
        count = len(INNER_UPPER_LIP)
        points = np.concatenate([self.points[:, :count][:, ::-1], self.points[:, count:][:, ::-1]], axis=1)
        flip = np.array([-1, 1], np.float32)
        return replace(
            self,
            pictures=self.pictures[:, :, ::-1],
            points=np.array([2 * ORIGIN[0], 0], np.float32) + flip * points,
            chin=flip * self.chin,
            normal=flip * self.normal,
            is_mirrored=True,
        )


def cut_mouths(film: Film, tracker: FaceTracker, model: FaceModel, rng: np.random.Generator) -> MouthFrames:
    """Track a film and cut its mouths. Raises InputError where it has no usable face."""
    faces, crops = _track(film, tracker)
    landmarks = np.stack([face.landmarks for face in faces])
    eyes_px = float(np.median([face.eye_distance_px for face in faces]))
    opening = mouth_opening(landmarks)
    widest = float(np.percentile(opening, 95))
    if eyes_px < LEAST_EYES_PX or widest < LEAST_OPENING:
        raise InputError(f"'{film.name}': its eyes are {eyes_px:.0f} px apart and its mouth opens by {widest:.2f}, "
                         f"wanted {LEAST_EYES_PX} px and {LEAST_OPENING}.")  # fmt: skip
    resting, aspect = rest_meshes(landmarks, model)
    share = np.where(opening > OPEN_SHARE * widest, 1.0, SHUT_SHARE)
    kept = np.sort(rng.choice(len(faces), min(KEPT_FRAMES, len(faces)), replace=False, p=share / share.sum()))
    pictures, points, chins, normals, colours = [], [], [], [], []
    for place, at in enumerate(kept):
        corner, crop = crops[at]
        mesh, rest = (vertices[at] - [*corner, 0] for vertices in (landmarks, resting))
        frame = MouthFrame.of(rest, aspect)
        lips = LipShape.of_mesh(frame, mesh, rest)
        picture = sample_frame(crop, frame)
        if place % COLOURS_EVERY == 0:
            colours.append(mean_colours(picture, frame.to_frame(mesh[:, :2]), lips.mask))
        pictures.append(picture)
        points.append(frame.to_frame(mesh[INNER_LIPS, :2]))
        chins.append(lips.jaw)
        normals.append(frame.normal)
    width_px = float(np.median(np.linalg.norm(resting[:, 291, :2] - resting[:, 61, :2], axis=1)))
    return MouthFrames(
        pictures=np.stack(pictures),
        points=np.stack(points),
        chin=np.stack(chins),
        normal=np.stack(normals),
        colour=np.mean(colours, axis=0),
        width_px=width_px,
        split=film.split,
    )


def rest_meshes(landmarks: Array, model: FaceModel) -> tuple[Array, float]:
    """Compute the resting meshes (T, 468, 3) px of tracked landmarks (T, 468, 3) px, on the film's own vertices that do
    not speak, and the aspect of the mouth's frame."""
    side = float(np.ptp(landmarks[0, :, 0])) * 2
    fits = [model.fit(to_square(points, 0, 0, side)) for points in landmarks]
    offsets = np.stack([canonical - model.spreads @ model.resting_offset(canonical) for *_, canonical in fits])
    identity = np.median(offsets, axis=0)
    resting = np.stack([to_pixels(scale * (identity @ turn) + shift, side) for scale, turn, shift, _ in fits])
    resting += (landmarks - resting)[:, STEADY].mean(1, keepdims=True)
    return resting, frame_aspect(identity)


def load_frames(films: list[Film], folder: Path) -> list[MouthFrames]:
    """Load the mouths of all usable films; missing ones are cut first and kept in `folder`.

    Raises InputError where no film is usable, OutputError where the disk is full."""

    def prepare() -> Callable[[Film, np.random.Generator], MouthFrames]:
        tracker, model = FaceTracker(), FaceModel.load()
        return lambda film, rng: cut_mouths(film, tracker, model, rng)

    return load_records(MouthFrames, films, folder, prepare, "a mouth")


def _track(film: Film, tracker: FaceTracker) -> tuple[list[Face], list[tuple[Array, Image]]]:
    """Track the face of a film; returns it for each frame in which it is seen, with the area around its mouth: left
    and top in px, and pixels. Raises InputError for a film without a face."""
    face, faces, crops = None, [], []
    for picture in itertools.islice(read_video(film.path), MOST_FRAMES):
        face = tracker.follow(picture, face)
        if face is None:
            continue
        mesh = face.landmarks
        middle, reach = mesh[[61, 291], :2].mean(0), 0.6 * float(np.linalg.norm(mesh[10, :2] - mesh[152, :2]))
        corner = np.floor(middle - reach).astype(int)
        columns, rows = (np.arange(start, start + int(2 * reach) + 1) for start in corner)
        rows, columns = np.clip(rows, 0, picture.shape[0] - 1), np.clip(columns, 0, picture.shape[1] - 1)
        faces.append(face)
        crops.append((corner, picture[rows[:, None], columns[None]]))
    if not faces:
        raise InputError(f"'{film.name}': no face was found.")
    return faces, crops
