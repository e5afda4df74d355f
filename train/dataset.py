"""Shards to what the motion model learns from: motion in the head's frame, in time with audio features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtalker.audio_encoder import AudioEncoder, encode_all
from kdtalker.mesh.geometry import FaceModel
from kdtalker.motion import KEYPOINTS, Array
from kdtalker.portrait import SQUARE_SIDE
from train.shards import Shard


@dataclass(frozen=True)
class Take:
    """One stretch of film as the model sees it: motion (T, 70), pose and shift minus their medians, scale held,
    expression in the head's own frame; features (T, C) float16 in time with it; canonical (21, 3)."""

    motion: Array
    features: Array
    canonical: Array
    speaker: str
    split: str
    film: str


def motion_of(landmarks: Array, model: FaceModel) -> tuple[Array, Array]:
    """(T, 468, 3) px to motion (T, 70) and canonical keypoints (21, 3), in the units of the face square."""
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    side = SQUARE_SIDE * float(np.median((high - low).max(1)))
    scale, pose, shift, canonical = model.unpose(landmarks.astype(np.float32) * (2 / side))
    mean = canonical.mean(0)
    identity = mean - model.spreads @ model.resting_offset(mean)
    vector = np.concatenate(
        [
            np.full_like(scale, np.median(scale)),
            pose - np.median(pose, 0),
            shift - np.median(shift, 0),
            model.offsets(canonical, identity).reshape(len(pose), 3 * KEYPOINTS),
        ],
        axis=1,
    )
    return vector.astype(np.float32), (model.picks @ identity).astype(np.float32)


def mirrored(motion: Array, canonical: Array, model: FaceModel) -> tuple[Array, Array]:
    """The same take in a mirror: (..., 70) and (21, 3) with left and right exchanged."""
    other = model.mirror.astype(int)
    signs = np.array([-1, 1, 1], np.float32)
    expression = motion[..., 7:].reshape(*motion.shape[:-1], KEYPOINTS, 3)[..., other, :] * signs
    turned = motion * np.array([1, -1, 1, -1, -1, 1, 1] + [1] * 3 * KEYPOINTS, np.float32)  # yaw, roll, shift x
    turned[..., 7:] = expression.reshape(*motion.shape[:-1], 3 * KEYPOINTS)
    return turned, canonical[other] * signs


def in_time(motion: Array, features: Array, lag_frames: int) -> tuple[Array, Array]:
    """Both cut so that frame t of the motion belongs to frame t of the features; lag > 0: mouth later than sound."""
    length = min(len(motion), len(features))
    late, early = max(0, lag_frames), max(0, -lag_frames)
    return motion[late : length - early], features[early : length - late]


def load_takes(shards: list[Shard], encoder: AudioEncoder, model: FaceModel, cache: Path) -> list[Take]:
    """One take for each shard whose sound is that of the mouth. Features are kept in `cache` between runs."""
    cache.mkdir(parents=True, exist_ok=True)
    takes = []
    for shard in shards:
        if not shard.synced:
            continue
        kept = cache / f"{shard.name}.npy"
        if not kept.exists():
            np.save(kept, encode_all(encoder, shard.sound.astype(np.float32)).astype(np.float16))
        motion, canonical = motion_of(shard.landmarks, model)
        motion, features = in_time(motion, np.load(kept), shard.lag_frames)
        takes.append(Take(motion, features, canonical, shard.speaker, shard.split, shard.film))
    return takes
