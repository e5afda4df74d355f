"""Calibrate a trained motion model on clips of the training split: guidance of the mouth, gains of the head."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MESH_SPACE, MOTION_WIDTH
from kdtalker.diffusion.calibration import POSE_AND_SHIFT, Calibration
from kdtalker.diffusion.fir_smoothing import EXPRESSION_KERNEL
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.sampler import WindowBatch
from kdtalker.renderers.mesh.anatomy import build_expression_model
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.sync import CORPUS_TAKES
from train.motion.dataset import Clip
from train.motion.validation import sample_clips

LEAST_FRAMES, MOST_FRAMES = 200, 750  # shorter clips are left out, of longer ones so much is used: heads need time
GUIDANCES = np.arange(0.5, 3.01, 0.05)  # tried for the mouth
GAINS = (0.5, 3.0)  # range of the head's gains


def calibrate(model: DiffusionMotionModel, clips: list[Clip], mouth: Array, silence: Array) -> Calibration | None:
    """Fit deviations to those of the clips: that of the mouth opening by guidance, in the median clip; those of pose
    and shift by gains, in the geometric mean. None where a model cannot be calibrated: one that predicts noise or
    absolute poses, or moves keypoints whose mouth is not known.

    mouth (63,): projection of an expression to the mouth opening; silence (C,): features of silence. Raises InputError
    where no clip has sound."""
    if not can_calibrate(model):
        return None
    clips = choose_clips(clips)
    projection = build_expression_model(FaceModel.load()).mouth
    guidance = _fit_guidance(model, clips, mouth)
    calibration = Calibration(projection, np.array(guidance, np.float32), np.ones(6, np.float32))
    sampled = sample_clips(replace(model, calibration=calibration), clips, silence)
    ratios = [
        np.log(
            (one.clip.motion[:, POSE_AND_SHIFT].std(0) + 1e-6)
            / (one.vectors[..., POSE_AND_SHIFT].std(1).mean(0) + 1e-6)
        )
        for one in sampled
    ]
    return replace(calibration, head_gain=np.exp(np.mean(ratios, axis=0)).clip(*GAINS).astype(np.float32))


def can_calibrate(model: DiffusionMotionModel) -> bool:
    """Tell whether a model predicts clean motion relative to the source, in the space of the mesh engine."""
    return model.config.prediction == "sample" and model.config.relative and model.space == MESH_SPACE


def choose_clips(clips: list[Clip]) -> list[Clip]:
    """Choose long clips with sound of speakers that are no corpus; where there are none, all with sound. Raises
    InputError where no clip has sound."""
    counts = Counter(clip.speaker for clip in clips)
    heard = [clip for clip in clips if np.any(clip.features)]
    if not heard:
        raise InputError("No clip with sound is left to calibrate to; widen the recipe's calibration_films.")
    chosen = [clip for clip in heard if len(clip.motion) >= LEAST_FRAMES and counts[clip.speaker] <= CORPUS_TAKES]
    return [
        replace(clip, motion=clip.motion[:MOST_FRAMES], features=clip.features[:MOST_FRAMES])
        for clip in chosen or heard
    ]


def _fit_guidance(model: DiffusionMotionModel, clips: list[Clip], mouth: Array) -> float:
    """Fit the guidance with which the median clip's mouth opening, smoothed as in films, deviates like the real one."""
    predictions = [predict_openings(model, clip, mouth) for clip in clips]
    reals = [float((clip.motion[:, 7:] @ mouth).std()) + 1e-6 for clip in clips]
    ratios = [
        np.median([
            np.convolve(without + scale * (heard - without), EXPRESSION_KERNEL, "valid").std() / real
            for (heard, without), real in zip(predictions, reals, strict=True)
        ])
        for scale in GUIDANCES
    ]  # fmt: skip
    return float(GUIDANCES[int(np.abs(np.log(np.array(ratios) + 1e-9)).argmin())])


def predict_openings(model: DiffusionMotionModel, clip: Clip, mouth: Array) -> tuple[Array, Array]:
    """Predict the mouth openings (T,) of a clip from noise alone, with its sound and without."""
    normalisation, frames = model.normalisation, len(clip.motion)
    reference = clip.motion[:1].copy()
    reference[:, POSE_AND_SHIFT] = 0
    window = WindowBatch.prepare(
        model.denoiser,
        normalisation.normalise_canonical(clip.canonical.reshape(1, -1)),
        normalisation.normalise(reference),
        np.asarray(clip.features, np.float32)[None],
        known=np.zeros((1, 0, MOTION_WIDTH), np.float32),
        new_frames=frames,
    )
    noise = np.random.default_rng(0).standard_normal((1, frames, MOTION_WIDTH), np.float32)
    made = np.concatenate(window.predict(noise, model.config.train_timesteps - 1, [1, 0]))
    heard, without = normalisation.restore(made)[..., 7:] @ mouth
    return heard, without
