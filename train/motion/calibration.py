"""Calibrate how a motion model samples the mouth, on clips of the training split."""

from __future__ import annotations

import numpy as np
import torch

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MESH_SPACE
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.denoiser import LEADING_TOKENS, token_timesteps
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.mouth import MouthSampling
from kdtalker.diffusion.sampler import leading_tokens
from kdtalker.renderers.mesh.anatomy import build_expression_model
from kdtalker.renderers.mesh.geometry import FaceModel
from train.motion.dataset import Clip, Corpus

CLIPS, CLIP_S = 96, 10  # so many clips of the training split at most, so many seconds of each
GUIDANCES = np.arange(1, 3.01, 0.05)


@torch.inference_mode()
def estimate_openings(model: DiffusionMotionModel, clip: Clip, projection: Array) -> tuple[Array, Array, Array]:
    """Estimate the mouth openings (T,) of a clip from noise alone, with its sound and without, beside the real one."""
    config, frames = model.config, min(len(clip.motion), CLIP_S * FRAME_RATE_HZ)
    normalisation = model.normalisation
    reference = clip.motion[:1].copy()
    reference[:, 1:7] = 0

    def batch(values: Array) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)[None])

    canonical = batch(normalisation.normalise_canonical(clip.canonical.reshape(-1)))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, frames, 70)).astype(np.float32))
    tokens = torch.cat([leading_tokens(canonical, batch(normalisation.normalise(reference)[0])), noise], dim=1)
    timesteps = token_timesteps(torch.tensor([config.train_timesteps - 1]), torch.zeros(1, frames, dtype=torch.bool))
    audio = model.denoiser.adapt(batch(clip.features[:frames]))
    audio = torch.cat([audio, torch.zeros_like(audio)])
    made = model.denoiser(tokens.repeat(2, 1, 1), timesteps.repeat(2, 1), audio)[:, LEADING_TOKENS:].numpy()
    heard, unheard = (normalisation.restore(vectors)[:, 7:] @ projection for vectors in made)
    return heard, unheard, clip.motion[:frames, 7:] @ projection


def calibrate_mouth(model: DiffusionMotionModel, corpus: Corpus) -> MouthSampling | None:
    """Fit the guidance of the mouth: its deviation is that of real mouths, in the median of clips of the training split,
    each speaker's longest. None for models that predict noise, and for keypoint spaces without a known mouth."""
    if model.config.prediction != "sample" or model.space != MESH_SPACE:
        return None
    longest: dict[str, Clip] = {}
    for clip in sorted(corpus.training, key=lambda clip: len(clip.motion)):
        if np.any(clip.features):
            longest[clip.speaker] = clip
    chosen = sorted(longest.values(), key=lambda clip: -len(clip.motion))[:CLIPS]
    openings = [estimate_openings(model, clip, corpus.mouth[0]) for clip in chosen]
    ratios = [
        np.median([(unheard + scale * (heard - unheard)).std() / (real.std() + 1e-6) for heard, unheard, real in openings])
        for scale in GUIDANCES
    ]
    guidance = float(GUIDANCES[int(np.argmin(np.abs(np.array(ratios) - 1)))])
    return MouthSampling(build_expression_model(FaceModel.load()).mouth, round(guidance, 2))
