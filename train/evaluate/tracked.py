"""Track a video once for all metrics: landmarks, head pose, identity, background, sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.tracker import Face, FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel
from train.evaluate.identity import FaceRecogniser
from train.harness.curves import log_loudness

IDENTITY_EVERY = 10  # every tenth frame gets an identity embedding
KEPT_PICTURES = 8  # thumbnails for the plot
CORNER = 0.125  # side of the two upper corners that stand for the background, relative to the frame's shorter side


@dataclass(frozen=True)
class TrackingNetworks:
    """Hold the networks that track videos, loaded once for all of them."""

    tracker: FaceTracker
    recogniser: FaceRecogniser

    @staticmethod
    def load() -> TrackingNetworks:
        """Load all networks. Raises InputError where the extra [train] is not installed."""
        return TrackingNetworks(FaceTracker(), FaceRecogniser())


@dataclass(frozen=True)
class TrackedVideo:
    """Hold a tracked video at 25 fps. landmarks (T, 468, 3) px, the last ones held where the face is lost; embeddings
    (n, 128) of every tenth frame; corners (T - 1,) mean absolute change of the upper corners between frames, of 255;
    sound (N,) at 16 kHz, N = 0 for a silent video; pictures: thumbnails, spread over the video."""

    path: Path
    landmarks: Array
    embeddings: Array
    corners: Array
    sound: Array
    pictures: list[Image]

    @cached_property
    def mouth(self) -> Array:
        """Return the gap (T,) of the inner lips over the outer-eye distance."""
        return mouth_opening(self.landmarks)

    @cached_property
    def eyes(self) -> Array:
        """Return the gap (T,) of the eyelids over the eye's width."""
        return eye_opening(self.landmarks)

    @cached_property
    def unposed(self) -> tuple[Array, Array]:
        """Compute the pose (T, 3) yaw, pitch, roll in degrees; frontal landmarks (T, 468, 3) in outer-eye distances."""
        _, pose, _, canonical = FaceModel.load().unpose(self.landmarks)
        return pose, canonical

    @property
    def pose(self) -> Array:
        """Return yaw, pitch and roll (T, 3) in degrees."""
        return self.unposed[0]

    @cached_property
    def loudness(self) -> Array:
        """Compute the logarithm (T,) of the RMS of the sound in each frame."""
        return log_loudness(self.sound)


def hold_last_face(faces: Iterable[Face | None]) -> Array:
    """Stack landmarks (T, 468, 3), the last face held where it is lost. Frames before the first face are left out."""
    held: list[Array] = []
    last: Face | None = None
    for face in faces:
        last = face or last
        if last is not None:
            held.append(last.landmarks)
    return np.stack(held)


def track_video(path: Path, networks: TrackingNetworks) -> TrackedVideo:
    """Track a video. Raises InputError where it cannot be read or shows no face."""
    faces: list[Face | None] = []
    embeddings, corners, pictures = [], [], []
    face: Face | None = None
    before: Image | None = None
    for number, frame in enumerate(read_video(path)):
        found = networks.tracker.follow(frame, face)
        face = found or face
        faces.append(found)
        if found and number % IDENTITY_EVERY == 0:
            embeddings.append(networks.recogniser.embed(frame, found.landmarks))
            pictures.append(_thumbnail(frame))
        if before is not None:
            corners.append(_corner_change(before, frame))
        before = frame
    if face is None:
        raise InputError(f"'{path}' shows no face, wanted a film of somebody who looks roughly into the camera.")
    held = hold_last_face(faces)
    landmarks = np.concatenate([held[:1].repeat(len(faces) - len(held), 0), held])
    chosen = np.linspace(0, len(pictures) - 1, min(KEPT_PICTURES, len(pictures))).astype(int)
    return TrackedVideo(
        path, landmarks, np.stack(embeddings), np.array(corners, np.float32), _read_sound(path),
        [pictures[index] for index in chosen],
    )  # fmt: skip


def _read_sound(path: Path) -> Array:
    beside = path.with_suffix(".wav")
    try:
        return np.concatenate(list(read_sound(beside if beside.exists() else path)))
    except InputError:
        return np.zeros(0, np.float32)


def _thumbnail(frame: Image) -> Image:
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(frame, (round(160 * width / height), 160), interpolation=cv2.INTER_AREA), np.uint8)


def _corner_change(before: Image, frame: Image) -> float:
    side = max(2, round(CORNER * min(frame.shape[:2])))
    pairs = [(before[:side, columns], frame[:side, columns]) for columns in (slice(side), slice(-side, None))]
    return float(np.mean([np.abs(one.astype(np.int16) - other).mean() for one, other in pairs]))
