"""What a film shows, measured once: face, head, background, who it is, and its sound. Any film, ours or another's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel
from train.evaluate.identity import FaceRecogniser

IDENTITY_EVERY = 10  # frames
KEPT_PICTURES = 8
CORNER = 0.125  # of the picture's shorter side: its two upper corners are looked at for the background


@dataclass(frozen=True)
class Tools:
    """Networks that look at films, shared by all of them."""

    tracker: FaceTracker
    face: FaceModel
    recogniser: FaceRecogniser

    @staticmethod
    def load() -> Tools:
        return Tools(FaceTracker(), FaceModel.load(), FaceRecogniser())


@dataclass(frozen=True)
class SeenFilm:
    """A film at 25 fps. landmarks (T, 468, 3) px, where the face was lost those before; lost: how many frames those
    are; embeddings (n, 128) of every tenth frame; corners (T - 1,) mean change of the upper corners between frames, of
    255; sound (N,) 16 kHz, none where it has none; pictures: some frames, spread over the film."""

    path: Path
    landmarks: Array
    lost: int
    embeddings: Array
    corners: Array
    sound: Array
    pictures: list[Image]

    @cached_property
    def mouth(self) -> Array:
        """(T,) gap of the inner lips over the outer-eye distance."""
        return mouth_opening(self.landmarks)

    @cached_property
    def eyes(self) -> Array:
        """(T,) gap of the lids over the eye's width."""
        return eye_opening(self.landmarks)

    @cached_property
    def unposed(self) -> tuple[Array, Array]:
        """Pose (T, 3) yaw, pitch, roll in degrees; the face turned to the front (T, 468, 3), in outer-eye distances."""
        _, pose, _, canonical = FaceModel.load().unpose(self.landmarks)
        return pose, canonical

    @property
    def pose(self) -> Array:
        return self.unposed[0]

    @cached_property
    def loudness(self) -> Array:
        """(T,) logarithm of the sound's root mean square in each frame."""
        frames = frame_count(len(self.sound))
        padded = np.pad(self.sound, (0, frames * SAMPLES_PER_FRAME - len(self.sound)))
        rms = np.sqrt((padded.reshape(frames, SAMPLES_PER_FRAME) ** 2).mean(1))
        logarithm: Array = np.log(rms + 1e-3)
        return logarithm


def look_at(path: Path, tools: Tools, sound: Path | None = None) -> SeenFilm:
    """Track a film. Raises InputError where it cannot be read or shows no face."""
    landmarks: list[Array | None] = []
    embeddings, corners, pictures = [], [], []
    face, before = None, None
    for number, frame in enumerate(read_video(path)):
        found = tools.tracker.follow(frame, face)
        face = found or face
        landmarks.append(face.landmarks if face else None)
        if found and number % IDENTITY_EVERY == 0:
            embeddings.append(tools.recogniser.embed(frame, found.landmarks))
            pictures.append(_small(frame))
        if before is not None:
            corners.append(_change(before, frame))
        before = frame
    known = [one for one in landmarks if one is not None]
    if not known:
        raise InputError(f"'{path}' shows no face, wanted a film of somebody who looks roughly into the camera.")
    filled = np.stack([known[0] if one is None else one for one in landmarks])
    lost = sum(one is None or other is one for other, one in zip([None, *landmarks], landmarks, strict=False))
    chosen = np.linspace(0, len(pictures) - 1, min(KEPT_PICTURES, len(pictures))).astype(int)
    return SeenFilm(
        path, filled, lost, np.stack(embeddings), np.array(corners, np.float32), _sound(sound or path),
        [pictures[index] for index in chosen],
    )  # fmt: skip


def _sound(path: Path) -> Array:
    beside = path.with_suffix(".wav")
    try:
        return np.concatenate(list(read_sound(beside if beside.exists() else path)))
    except InputError:
        return np.zeros(0, np.float32)


def _small(frame: Image) -> Image:
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(frame, (round(160 * width / height), 160), interpolation=cv2.INTER_AREA), np.uint8)


def _change(before: Image, frame: Image) -> float:
    side = max(2, round(CORNER * min(frame.shape[:2])))
    pairs = [(before[:side, columns], frame[:side, columns]) for columns in (slice(side), slice(-side, None))]
    return float(np.mean([np.abs(one.astype(np.int16) - other).mean() for one, other in pairs]))
