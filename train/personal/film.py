"""Read a person's film: track the face, fit motion, hear the sound, align both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.face.landmarks import LANDMARKS
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.prepare import split_clips
from train.data.shards import Shard
from train.data.sync import LARGEST_LAG_FRAMES
from train.distil.arm import draw_noise
from train.distil.arm import generate as generate_motion
from train.harness.curves import correlation
from train.motion.dataset import align, fit_motion, to_model_vectors
from train.personal.student import BaseStudent

LEAST_S, MOST_S = 20.0, 300.0  # of a film that are wanted, and that are used
SILENT = 1e-3  # sound that is never louder is silence
# Of the mouth with what the student makes of the sound, at the best lag. Mouths of two people over 20 s of different
# speech correlate by 0.10 in the median pair of 226, by 0.21 or more in one of twenty.
LEAST_CORRELATION = 0.2
LAGS = range(-LARGEST_LAG_FRAMES, LARGEST_LAG_FRAMES + 1)  # in frames, of the mouth behind the sound
LAG_SEEDS = 4


@dataclass(frozen=True)
class HeardClip:
    """Hold a stretch of film as a student sees it, T frames: features (T, C) of its audio encoder; motion (T, 70) and
    canonical keypoints (63,), normalised; still (6,): pose and shift of 0, normalised."""

    film: str
    features: Tensor
    motion: Tensor
    canonical: Tensor
    still: Tensor

    def __len__(self) -> int:
        return len(self.motion)

    def portrait(self, frame: int) -> Tensor:
        """Return the portrait (133,) that a frame of it is, looking straight ahead."""
        reference = self.motion[frame].clone()
        reference[POSE_AND_SHIFT] = self.still
        return torch.cat([self.canonical, reference])

    def cut(self, start: int, end: int) -> HeardClip:
        """Return the frames from start to end."""
        return replace(self, features=self.features[start:end], motion=self.motion[start:end])


def read_film(path: Path) -> list[Shard]:
    """Track a person's film and cut it where the face is lost or jumps. Raises InputError, before the face is tracked
    where that can be, for a film without sound or face and for one that is too short."""
    sound = _read_sound(path)
    tracker, nothing = FaceTracker(), np.full((LANDMARKS, 3), np.nan, np.float32)
    faces = tracker.follow_film(islice(read_video(path), round(MOST_S * FRAME_RATE_HZ)))
    landmarks = np.stack([nothing if face is None else face.landmarks for face in faces] or [nothing])
    if np.isnan(landmarks).all():
        raise InputError(f"'{path}' shows no face, wanted a film of one person who speaks into the camera.")
    padded = np.pad(sound, (0, max(0, len(landmarks) * SAMPLES_PER_FRAME - len(sound)))).astype(np.float16)
    sounds = padded[: len(landmarks) * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    clips = [clip for clip, reason in split_clips(landmarks) if not reason]
    return [
        Shard(landmarks[clip], sounds[clip].ravel(), False, 0, path.stem, "train", str(path), int(clip.start))
        for clip in clips
    ]


def _read_sound(path: Path) -> Array:
    try:
        sound = np.concatenate(list(read_sound(path, duration_s=MOST_S)))
    except InputError as error:
        raise InputError(f"There is no sound to learn from: {error}") from None
    if np.abs(sound).max() < SILENT:
        raise InputError(f"The sound of '{path}' is silence, wanted a film of a person who speaks.")
    return sound


def require_length(shards: list[Shard], films: list[Path]) -> None:
    """Raise InputError where all clips together are too short."""
    seconds = sum(len(shard.landmarks) for shard in shards) / FRAME_RATE_HZ
    if seconds < LEAST_S:
        names = ", ".join(f"'{film}'" for film in films)
        raise InputError(
            f"The face can be followed for {seconds:.0f} s in {names}, wanted {LEAST_S:.0f} s or more, best a minute; "
            "give a longer film, near and without cuts, or several."
        )


def hear_clips(shards: list[Shard], student: BaseStudent) -> tuple[list[HeardClip], dict[str, tuple[int, float]]]:
    """Hear shards as a student does, motion aligned with sound by one lag for each film, estimated where the shards do
    not know it; return also these lags in frames, positive where the mouth is later, and the correlation of mouth and
    student there."""
    face, normalisation, clips = FaceModel.load(), student.normalisation, list[HeardClip]()
    lags: dict[str, tuple[int, float]] = {}
    still = torch.from_numpy(normalisation.normalise(np.zeros(MOTION_WIDTH, np.float32))[POSE_AND_SHIFT])
    for film, group in groupby(shards, lambda shard: shard.film):
        heard, known_lag = [], None
        for shard in group:
            known_lag = shard.lag_frames if shard.synced else known_lag
            motion, canonical = fit_motion(shard.landmarks, face)
            vectors = normalisation.normalise(to_model_vectors(motion, relative=True)).astype(np.float32)
            keypoints = normalisation.normalise_canonical(canonical.reshape(-1)).astype(np.float32)
            features = student.encode(shard.sound.astype(np.float32))[: len(vectors)]
            heard.append(HeardClip(film, features, torch.from_numpy(vectors), torch.from_numpy(keypoints), still))
        lag_frames, r = estimate_lag(heard, student, LAGS if known_lag is None else [known_lag])
        lags[film] = lag_frames, r
        for clip in heard:
            moved, known = align(clip.motion.numpy(), clip.features.numpy(), lag_frames)
            if len(moved) > 1:
                clips.append(replace(clip, motion=torch.from_numpy(moved), features=torch.from_numpy(known)))
    return clips, lags


def estimate_lag(clips: list[HeardClip], student: BaseStudent, lags: Sequence[int]) -> tuple[int, float]:
    """Estimate by how many frames, one of `lags`, the mouths of clips are later than their sound, from what the student
    makes of it, and their correlation there: means over clips by their length."""
    rows, sizes, mouth = [], [], student.mouth[0]
    for clip in clips:
        made = generate(student.network, clip, LAG_SEEDS).mean(0)[:, 7:] @ mouth
        real = clip.motion[:, 7:].numpy() @ mouth
        rows.append([correlation(real, made, lag) for lag in lags])
        sizes.append(len(clip))
    means = np.average(rows, 0, sizes)
    return lags[int(means.argmax())], float(means.max())


@torch.no_grad()
def generate(network: StudentNetwork, clip: HeardClip, seeds: int) -> Array:
    """Generate the normalised motion (seeds, T, 70) of a clip's sound, from its first frame."""
    noise = draw_noise(network.motion, seeds, len(clip.features), torch.Generator().manual_seed(0))
    features, portrait = (one.expand(seeds, *one.shape) for one in (clip.features, clip.portrait(0)))
    made: Array = generate_motion(network.motion, features, portrait, noise).numpy()
    made[..., 0] = clip.portrait(0)[-MOTION_WIDTH].item()  # the scale is the portrait's
    return made
