"""Build the training set of the motion model from shards: clips of motion vectors aligned with audio features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from kdtalker.audio.encoders import encoder_spec, load_encoder
from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, Motion, rotation_matrix, to_head_frame
from kdtalker.core.protocols import AudioEncoder
from kdtalker.core.rates import SAMPLES_PER_FRAME
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.face.portrait import SQUARE_RISE, SQUARE_SIDE
from kdtalker.renderers.liveportrait.regions import LIP_KEYPOINTS
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.augment import augment_sound, draw_copy, load_augmented, resample_frames
from train.data.features import load_features
from train.data.shards import load_published, load_shards
from train.motion.recipe import Recipe
from train.motion.sounds import ClipSound

VALIDATION_SPLIT = "val"


@dataclass(frozen=True)
class Clip:
    """Hold one clip as the model sees it: motion (T, 70) with constant scale, for relative models pose and shift minus
    their medians and the expression in the head's own axes; aligned features (T, C) float16, zeros where the sound does
    not belong to the face; canonical (21, 3). copies: the same with augmented sound. sound: the aligned sound itself,
    where windows are encoded as they are drawn; copies then have no features."""

    motion: Array
    features: Array
    canonical: Array
    speaker: str
    split: str
    film: str
    copies: tuple[Clip, ...] = ()
    sound: ClipSound | None = None


def fit_motion(landmarks: Array, model: FaceModel) -> tuple[Motion, Array]:
    """Fit motion and canonical keypoints (21, 3) to landmarks (T, 468, 3) px, in the face crop of the first frame."""
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    side = SQUARE_SIDE * float(np.median((high - low).max(1)))
    middle = np.append((low[0] + high[0]) / 2 - (0, SQUARE_RISE * side), 0)
    scale, pose, shift, canonical = model.unpose(((landmarks - middle) * (2 / side)).astype(np.float32))
    mean = canonical.mean(0)
    identity = mean - model.spreads @ model.resting_offset(mean)
    expression = model.offsets(canonical, identity) @ rotation_matrix(pose)
    return Motion(scale, pose, shift, expression, MESH_SPACE), (model.picks @ identity).astype(np.float32)


def to_model_vectors(motion: Motion, *, relative: bool) -> Array:
    """Convert to vectors (T, 70) with constant scale; relative ones as in `Clip`."""
    seen = to_head_frame(motion) if relative else motion
    vector: Array = seen.vector()
    vector[:, 0] = np.median(vector[:, 0])
    if relative:
        vector[:, 1:7] -= np.median(vector[:, 1:7], axis=0)
    return vector


def mirror(motion: Array, canonical: Array, model: FaceModel) -> tuple[Array, Array]:
    """Mirror motion (..., 70) and canonical keypoints (21, 3), exchanging left and right (data augmentation)."""
    other = model.mirror.astype(int)
    signs = np.array([-1, 1, 1], np.float32)
    expression = rearrange(motion[..., 7:], "... (k c) -> ... k c", c=3)[..., other, :] * signs
    flipped = motion * np.array([1, -1, 1, -1, -1, 1, 1] + [1] * 3 * KEYPOINTS, np.float32)  # yaw, roll, shift x
    flipped[..., 7:] = rearrange(expression, "... k c -> ... (k c)")
    return flipped, canonical[other] * signs


def mouth_projections(space: str, clips: list[Clip]) -> Array:
    """Return projections (n, 63) of an expression to mouth openings: in the mesh space the gaps of the inner lips, in
    LivePortrait's the first principal component of the heights of its lip keypoints."""
    if space == MESH_SPACE:
        spreads = FaceModel.load().spreads
        upper, lower = np.array(LIP_PAIRS).T
        rows = np.zeros((len(upper), KEYPOINTS, 3), np.float32)
        rows[..., 1] = spreads[lower] - spreads[upper]
    else:
        lips = list(LIP_KEYPOINTS)
        heights = np.concatenate([rearrange(clip.motion[:, 7:], "t (k c) -> t k c", c=3)[:, lips, 1] for clip in clips])
        rows = np.zeros((1, KEYPOINTS, 3), np.float32)
        rows[0, lips, 1] = np.linalg.eigh(np.cov(heights.T))[1][:, -1]
    return rows.reshape(len(rows), -1)


def align(motion: Array, features: Array, lag_frames: int) -> tuple[Array, Array]:
    """Trim both so that frame t of the motion belongs to frame t of the features; lag > 0: mouth later than sound."""
    length = min(len(motion), len(features))
    late, early = max(0, lag_frames), max(0, -lag_frames)
    return motion[late : length - early], features[early : length - late]


def load_clips(recipe: Recipe, encoder: AudioEncoder[Any]) -> list[Clip]:
    """Load one clip for each shard; features are memory-mapped from caches beside the shards. Shards for training that
    are out of sync have no audio, those in sync so many augmented copies. Raises InputError where no shard is in sync
    with its sound, or none of that keypoint space."""
    folder, space, config, copies = recipe.shards, recipe.space, recipe.model, recipe.augmented_copies
    cache = folder / encoder_spec(config.audio_encoder).cache_folder
    face, clips, synced = FaceModel.load(), [], 0
    for shard in load_shards(folder):
        is_training = shard.split != VALIDATION_SPLIT
        if not shard.synced and not is_training:
            continue
        motion, canonical = fit_motion(shard.landmarks, face) if space == MESH_SPACE else load_published(folder, shard)
        vectors, who = to_model_vectors(motion, relative=config.relative), (shard.speaker, shard.split, shard.film)
        if not shard.synced:
            unheard: Any = np.zeros((len(vectors), encoder.feature_size), np.float16)
            clips.append(Clip(vectors, unheard, canonical, *who))
            continue
        synced += 1
        aligned = align(vectors, load_features(shard, encoder, cache), shard.lag_frames)
        others = []
        for copy in range(copies if is_training else 0):
            if recipe.lookahead:
                speed, _, rng = draw_copy(shard, copy)
                sound = cut_sound(augment_sound(shard, speed, rng))
                moved, sound = align(resample_frames(vectors, speed), sound, round(shard.lag_frames / speed))
                others.append(_heard(Clip(moved, sound[:, :0], canonical, *who), sound, encoder))
                continue
            features, speed = load_augmented(shard, encoder, cache.with_name(f"{cache.name}-augmented"), copy)
            other = align(resample_frames(vectors, speed), features, round(shard.lag_frames / speed))
            others.append(Clip(*other, canonical, *who))
        clip = Clip(*aligned, canonical, *who, tuple(others))
        if recipe.lookahead:
            clip = _heard(clip, align(vectors, cut_sound(shard.sound), shard.lag_frames)[1], encoder)
        clips.append(clip)
    if not synced:
        raise InputError(f"No shard in '{folder}' is in sync with its sound; prepare films of people who speak.")
    return clips


def cut_sound(samples: NDArray[np.floating]) -> Array:
    """Cut sound (N,) into frames (T, 640); an incomplete one is left out."""
    whole = len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    return rearrange(samples[:whole].astype(np.float32), "(t s) -> t s", s=SAMPLES_PER_FRAME)


def _heard(clip: Clip, sound: Array, encoder: AudioEncoder[Any]) -> Clip:
    """Add aligned sound (T, 640) to a clip. Raises InputError for an encoder that cannot slide."""
    if not isinstance(encoder, WhisperEncoder):
        raise InputError("The recipe's lookahead needs an encoder that slides: set the audio_encoder to Whisper.")
    return replace(clip, sound=ClipSound.of(sound.ravel(), encoder.mel_filters))


def fit_normalisation(clips: list[Clip], *, relative: bool) -> Normalisation:
    """Fit mean and std over clips. The std of an expression is at least half of their root mean square, so that numbers
    that hardly move do not weigh as much as lips; that of the scale is its spread over people."""
    motion = np.concatenate([clip.motion for clip in clips])
    canonical = np.stack([clip.canonical.reshape(-1) for clip in clips])
    std = motion.std(0)
    std[7:] = np.maximum(std[7:], 0.5 * np.sqrt((std[7:] ** 2).mean()))
    std[:7] = np.maximum(std[:7], 1e-3)
    mean = motion.mean(0)
    if relative:
        mean[1:7] = 0
    return Normalisation(mean, std, canonical.mean(0), np.maximum(canonical.std(0), 0.01))


@dataclass(frozen=True)
class Corpus:
    """Hold the data of a training run: clips of the training and validation split, the audio encoder of their features,
    the normalisation, and projections (n, 63) of an expression to mouth openings."""

    encoder: AudioEncoder[Any]
    training: list[Clip]
    validation: list[Clip]
    normalisation: Normalisation
    mouth: Array

    @staticmethod
    def load(recipe: Recipe) -> Corpus:
        """Load the shards of a recipe. Raises InputError as `load_clips`, and where the training split is empty."""
        encoder = load_encoder(recipe.model.audio_encoder)
        clips = load_clips(recipe, encoder)
        training, validation = (
            [clip for clip in clips if clip.split == split] for split in ("train", VALIDATION_SPLIT)
        )
        if not training:
            raise InputError(f"All shards in '{recipe.shards}' are of the split 'val'; there is nothing to learn from.")
        mouth, relative = mouth_projections(recipe.space, training), recipe.model.relative
        normalisation = fit_normalisation(training, relative=relative)
        if recipe.begin_with != Path():
            normalisation = read_motion_header(recipe.begin_with).normalisation
        return Corpus(encoder, training, validation, normalisation, mouth)

    @property
    def fingerprint(self) -> dict[str, int]:
        """Return counts of clips ("takes") and frames, by which a resumed run recognises its data."""
        return {"takes": len(self.training), "frames": sum(len(clip.motion) for clip in self.training)}
