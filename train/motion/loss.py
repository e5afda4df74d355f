"""Compute the denoising loss of the motion model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.denoiser import LEADING_TOKENS, Denoiser, leading_tokens, token_timesteps
from kdtalker.diffusion.solver import make_scheduler
from train.motion.dataset import Corpus
from train.motion.recipe import Recipe


class DenoisingLoss(nn.Module):
    """Compute the loss of a batch: mean square error of the clean motion (arXiv 2202.00512, section 4) or of the noise
    (arXiv 2006.11239, eq. 14), as the model predicts; for clean motion also errors of lip gaps and of frame
    differences, weighted by the recipe. Random numbers come from torch's global generator."""

    alphas: Tensor
    weights: Tensor
    mouth: Tensor

    def __init__(self, denoiser: Denoiser, recipe: Recipe, corpus: Corpus) -> None:
        super().__init__()
        self.denoiser, self._recipe = denoiser, recipe
        weights = torch.ones(MOTION_WIDTH)
        weights[1:7] = recipe.head_share * 63 / 6
        alphas, mouth = (
            make_scheduler(recipe.model, 1).alphas_cumprod,
            torch.from_numpy(standardised_mouth_rows(corpus)),
        )
        for name, value in {"alphas": alphas, "weights": weights, "mouth": mouth}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, known: Tensor, features: Tensor, canonical: Tensor, reference: Tensor) -> Tensor:
        """Compute the loss () from the fields of a MotionBatch."""
        recipe, size, device = self._recipe, len(x), x.device
        timesteps = self._timesteps(size, device)
        noise, is_known = torch.randn_like(x), known[..., None]
        alpha = self.alphas[timesteps][:, None, None]
        noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
        noisy = torch.where(is_known, x + recipe.context_noise * noise, noisy)
        tokens = torch.cat([leading_tokens(canonical, reference), noisy], dim=1)
        audio = self._augment_audio(features.float())
        predicted = self.denoiser(tokens, token_timesteps(timesteps, known), audio)[:, LEADING_TOKENS:].float()
        if recipe.model.prediction == "epsilon":
            noise_loss: Tensor = (torch.where(is_known, 0.0, predicted - noise) ** 2 * self.weights).mean()
            return noise_loss
        error = torch.where(is_known, 0.0, predicted - x)
        loss: Tensor = (error**2 * self.weights).mean()
        loss = loss + recipe.lip_loss * ((error[..., 7:] @ self.mouth) ** 2).mean()
        return loss + recipe.difference_loss * (error.diff(dim=1) ** 2 * self.weights).mean()

    def _timesteps(self, size: int, device: torch.device) -> Tensor:
        """Draw timesteps (B,) with the density of the sampler's steps, see make_scheduler, and some the noisiest."""
        places = torch.rand(size, device=device)
        if self._recipe.model.timestep_spacing == "quadratic":
            places = 1 - places**2
        places = torch.where(torch.rand(size, device=device) < self._recipe.noisiest_share, 1.0, places)
        timesteps: Tensor = (places * (len(self.alphas) - 1)).round().long()
        return timesteps

    def _augment_audio(self, features: Tensor) -> Tensor:
        """Encode features (B, F, C) with Gaussian noise augmentation on some windows and condition dropout on others
        (classifier-free guidance)."""
        recipe, one = self._recipe, (len(features), 1, 1)
        is_heard = features.any(-1, keepdim=True).any(1, keepdim=True)
        is_loud = torch.rand(one, device=features.device) < recipe.audio_noise_share
        spread = recipe.audio_noise * features.std((0, 1))
        features = features + is_loud * spread * torch.randn_like(features)
        is_kept = (torch.rand(one, device=features.device) >= recipe.audio_drop) & is_heard
        audio: Tensor = self.denoiser.adapt(features) * is_kept
        return audio


def standardised_mouth_rows(corpus: Corpus) -> Array:
    """Compute the matrix (63, n) from normalised expressions to mouth openings in standard deviations of the corpus."""
    openings = np.concatenate([clip.motion[:, 7:] @ corpus.mouth.T for clip in corpus.training])
    scaled: Array = (corpus.mouth * corpus.normalisation.std[7:] / (openings.std(0)[:, None] + 1e-6)).T
    return scaled.astype(np.float32)
