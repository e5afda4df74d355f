"""Shards to what the motion model learns from: motion as the model sees it, in time with audio features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.audio.encoders import encode_all, load_encoder
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, Motion, rotation_matrix, to_head_frame
from kdtalker.core.protocols import AudioEncoder
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.face.portrait import SQUARE_RISE, SQUARE_SIDE
from kdtalker.renderers.liveportrait.regions import LIP_KEYPOINTS
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.shards import Shard, load_published, load_shards
from train.motion.recipe import Recipe


@dataclass(frozen=True)
class Clip:
    """One stretch of film as the model sees it: motion (T, 70), scale held, and where the model is relative pose and
    shift minus their medians, expression in the head's own frame; features (T, C) float16 in time with it; canonical
    (21, 3)."""

    motion: Array
    features: Array
    canonical: Array
    speaker: str
    split: str
    film: str


def mesh_motion(landmarks: Array, model: FaceModel) -> tuple[Motion, Array]:
    """(T, 468, 3) px to motion and canonical keypoints (21, 3), in the face square around the first frame."""
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    side = SQUARE_SIDE * float(np.median((high - low).max(1)))
    middle = np.append((low[0] + high[0]) / 2 - (0, SQUARE_RISE * side), 0)
    scale, pose, shift, canonical = model.unpose(((landmarks - middle) * (2 / side)).astype(np.float32))
    mean = canonical.mean(0)
    identity = mean - model.spreads @ model.resting_offset(mean)
    expression = model.offsets(canonical, identity) @ rotation_matrix(pose)
    return Motion(scale, pose, shift, expression, MESH_SPACE), (model.picks @ identity).astype(np.float32)


def vectors(motion: Motion, *, relative: bool) -> Array:
    """(T, 70) with the scale held; relative ones as the class Clip says."""
    seen = to_head_frame(motion) if relative else motion
    vector: Array = seen.vector()
    vector[:, 0] = np.median(vector[:, 0])
    if relative:
        vector[:, 1:7] -= np.median(vector[:, 1:7], axis=0)
    return vector


def mirrored(motion: Array, canonical: Array, model: FaceModel) -> tuple[Array, Array]:
    """The same take in a mirror: (..., 70) and (21, 3) with left and right exchanged."""
    other = model.mirror.astype(int)
    signs = np.array([-1, 1, 1], np.float32)
    expression = motion[..., 7:].reshape(*motion.shape[:-1], KEYPOINTS, 3)[..., other, :] * signs
    turned = motion * np.array([1, -1, 1, -1, -1, 1, 1] + [1] * 3 * KEYPOINTS, np.float32)  # yaw, roll, shift x
    turned[..., 7:] = expression.reshape(*motion.shape[:-1], 3 * KEYPOINTS)
    return turned, canonical[other] * signs


def mouth_rows(space: str, takes: list[Clip]) -> Array:
    """(rows, 63): what each row makes of an expression tells how far the mouth is open. In the mesh space the gaps of
    the inner lips; in LivePortrait's the way in which its lip keypoints move up and down most."""
    if space == MESH_SPACE:
        spreads = FaceModel.load().spreads
        upper, lower = np.array(LIP_PAIRS).T
        rows = np.zeros((len(upper), KEYPOINTS, 3), np.float32)
        rows[..., 1] = spreads[lower] - spreads[upper]
    else:
        lips = list(LIP_KEYPOINTS)
        heights = np.concatenate([take.motion[:, 7:].reshape(-1, KEYPOINTS, 3)[:, lips, 1] for take in takes])
        rows = np.zeros((1, KEYPOINTS, 3), np.float32)
        rows[0, lips, 1] = np.linalg.eigh(np.cov(heights.T))[1][:, -1]
    return rows.reshape(len(rows), -1)


def in_time(motion: Array, features: Array, lag_frames: int) -> tuple[Array, Array]:
    """Both cut so that frame t of the motion belongs to frame t of the features; lag > 0: mouth later than sound."""
    length = min(len(motion), len(features))
    late, early = max(0, lag_frames), max(0, -lag_frames)
    return motion[late : length - early], features[early : length - late]


def load_takes(folder: Path, space: str, encoder: AudioEncoder[Any], config: DenoiserConfig) -> list[Clip]:
    """One take for each shard whose sound is that of the mouth. Features stay on the disk, where they are kept between
    runs. Raises InputError where there are no such shards, or none of that keypoint space."""
    kept = folder / ("features" if config.audio_encoder == "whisper-tiny.en" else f"features-{config.audio_encoder}")
    face, takes = FaceModel.load(), []
    for shard in load_shards(folder):
        if not shard.synced:
            continue
        motion, canonical = mesh_motion(shard.landmarks, face) if space == MESH_SPACE else load_published(folder, shard)
        features = _features(shard, encoder, kept / f"{shard.name}.npy")
        motion_vectors, features = in_time(vectors(motion, relative=config.relative), features, shard.lag_frames)
        takes.append(Clip(motion_vectors, features, canonical, shard.speaker, shard.split, shard.film))
    if not takes:
        raise InputError(f"No shard in '{folder}' is in sync with its sound; prepare films of people who speak.")
    return takes


def _features(shard: Shard, encoder: AudioEncoder[Any], kept: Path) -> Array:
    """(T, C) float16, as a view of a file."""
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        write_atomically(kept, lambda file: np.save(file, _encoded(shard, encoder)))
    features: Array = np.load(kept, mmap_mode="r")
    if features.shape[1:] != (encoder.feature_size,):
        raise InputError(f"'{kept}' holds {features.shape[1:]} numbers a frame, wanted {encoder.feature_size}; "
                         "remove that folder, it is made again.")  # fmt: skip
    return features


def _encoded(shard: Shard, encoder: AudioEncoder[Any]) -> Array:
    return encode_all(encoder, shard.sound.astype(np.float32)).astype(np.float16)


def fit_normalisation(takes: list[Clip], *, relative: bool) -> Normalisation:
    """Means and deviations over the takes. Deviations of the expression are held above half of their root mean
    square, so that numbers that hardly move do not count as much as lips; scale gets the spread over people."""
    motion = np.concatenate([take.motion for take in takes])
    canonical = np.stack([take.canonical.reshape(-1) for take in takes])
    std = motion.std(0)
    std[7:] = np.maximum(std[7:], 0.5 * np.sqrt((std[7:] ** 2).mean()))
    std[:7] = np.maximum(std[:7], 1e-3)
    mean = motion.mean(0)
    if relative:
        mean[1:7] = 0
    return Normalisation(mean, std, canonical.mean(0), np.maximum(canonical.std(0), 0.01))


@dataclass(frozen=True)
class Corpus:
    """All that a training knows of its data: takes to learn from and takes of people held out, what their features are
    made by, the normalisation, and rows (n, 63) over expressions that tell how far the mouth is open."""

    encoder: AudioEncoder[Any]
    seen: list[Clip]
    unseen: list[Clip]
    normalisation: Normalisation
    mouth: Array

    @staticmethod
    def load(recipe: Recipe) -> Corpus:
        """Raises InputError as `load_takes` does, and where all films are held out."""
        encoder = load_encoder(recipe.model.audio_encoder)
        takes = load_takes(recipe.shards, recipe.space, encoder, recipe.model)
        seen, unseen = ([take for take in takes if take.split == split] for split in ("train", "val"))
        if not seen:
            raise InputError(f"All shards in '{recipe.shards}' are of the split 'val'; there is nothing to learn from.")
        mouth, relative = mouth_rows(recipe.space, seen), recipe.model.relative
        return Corpus(encoder, seen, unseen, fit_normalisation(seen, relative=relative), mouth)

    @property
    def fingerprint(self) -> dict[str, int]:
        """By which a run knows its data again."""
        return {"takes": len(self.seen), "frames": sum(len(take.motion) for take in self.seen)}
