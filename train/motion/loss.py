"""What the motion model is trained to make small."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.denoiser import LEADING_TOKENS, Denoiser, token_timesteps
from kdtalker.diffusion.sampler import leading_tokens, make_scheduler
from train.motion.dataset import Corpus
from train.motion.recipe import Recipe


class Objective(nn.Module):
    """The loss of a batch: mean square error of the clean motion (arXiv 2202.00512, section 4) or of the noise (arXiv
    2006.11239, eq. 14), whichever the model predicts; for clean motion also the errors of mouth openings and of frame
    differences, by the recipe's weights. Its random numbers are torch's own."""

    def __init__(self, denoiser: Denoiser, recipe: Recipe, corpus: Corpus) -> None:
        super().__init__()
        self.denoiser, self._recipe = denoiser, recipe
        weights = torch.ones(MOTION_WIDTH)
        weights[1:7] = recipe.head_share * 63 / 6
        alphas, mouth = make_scheduler(recipe.model, 1).alphas_cumprod, torch.from_numpy(mouth_in_deviations(corpus))
        for name, value in {"alphas": alphas, "weights": weights, "mouth": mouth}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, known: Tensor, features: Tensor, canonical: Tensor, reference: Tensor) -> Tensor:
        """A Batch's fields to a loss ()."""
        recipe, size, device = self._recipe, len(x), x.device
        timesteps = self._timesteps(size, device)
        noise, is_known = torch.randn_like(x), known[..., None]
        alpha = self.alphas[timesteps][:, None, None]
        noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
        noisy = torch.where(is_known, x + recipe.context_noise * noise, noisy)
        tokens = torch.cat([leading_tokens(canonical, reference), noisy], dim=1)
        audio = self._heard(features.float())
        predicted = self.denoiser(tokens, token_timesteps(timesteps, known), audio)[:, LEADING_TOKENS:].float()
        if recipe.model.prediction == "epsilon":
            return (torch.where(is_known, 0.0, predicted - noise) ** 2 * self.weights).mean()
        error = torch.where(is_known, 0.0, predicted - x)
        loss = (error**2 * self.weights).mean()
        loss = loss + recipe.lip_loss * ((error[..., 7:] @ self.mouth) ** 2).mean()
        return loss + recipe.difference_loss * (error.diff(dim=1) ** 2 * self.weights).mean()

    def _timesteps(self, size: int, device: torch.device) -> Tensor:
        """(B,), as dense as the sampler's steps, see make_scheduler."""
        places = torch.rand(size, device=device)
        if self._recipe.model.timestep_spacing == "quadratic":
            places = 1 - places**2
        return (places * (len(self.alphas) - 1)).round().long()

    def _heard(self, features: Tensor) -> Tensor:
        """Features (B, F, C) as the denoiser hears them: with noise on some windows, and on some nothing at all."""
        recipe, one = self._recipe, (len(features), 1, 1)
        is_loud = torch.rand(one, device=features.device) < recipe.audio_noise_share
        spread = recipe.audio_noise * features.std((0, 1))
        features = features + is_loud * spread * torch.randn_like(features)
        is_kept = torch.rand(one, device=features.device) >= recipe.audio_drop
        heard: Tensor = self.denoiser.adapt(features) * is_kept
        return heard


def mouth_in_deviations(corpus: Corpus) -> Array:
    """(63, n): normalised expressions to mouth openings, in deviations of those in the corpus."""
    openings = np.concatenate([take.motion[:, 7:] @ corpus.mouth.T for take in corpus.training])
    scaled: Array = (corpus.mouth * corpus.normalisation.std[7:] / (openings.std(0)[:, None] + 1e-6)).T
    return scaled.astype(np.float32)
