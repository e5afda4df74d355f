"""Compute the loss of the shading network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.harness.texture import texture_loss
from train.shading.batches import ShadingBatch
from train.shading.recipe import ShadingRecipe

WINDOW_PX = 8  # side of the windows in which texture is compared


def shade(network: nn.Module, batch: ShadingBatch) -> tuple[Tensor, Tensor]:
    """Multiply warped crops by their ratio images; returns them (B, 3, SIDE_PX, SIDE_PX) and the log ratios."""
    log_ratio = network(batch.warped, batch.mask, batch.displacement)
    return batch.warped * log_ratio.exp(), log_ratio


def skin_weight(batch: ShadingBatch) -> Tensor:
    """Compute the weight (B, 1, SIDE_PX, SIDE_PX) 0..1 of what may change: not the opening and its border."""
    return 1 - F.max_pool2d(batch.mask, 3, 1, 1)


def shading_loss(network: nn.Module, batch: ShadingBatch, recipe: ShadingRecipe) -> tuple[Tensor, Tensor]:
    """Compute the loss (), the Charbonnier loss of colours and gradients outside the opening and the prior on log
    ratios; and the shaded crops (B, 3, SIDE_PX, SIDE_PX)."""
    shaded, log_ratio = shade(network, batch)
    error, weight = shaded - batch.real, batch.weight * skin_weight(batch)
    loss: Tensor = (weight * torch.sqrt(error**2 + 1e-3)).mean() + recipe.ratio_weight * (log_ratio**2).mean()
    for axis in (2, 3):
        steeper = error.diff(dim=axis)
        share = weight.narrow(axis, 1, steeper.shape[axis])
        loss = loss + recipe.gradient_weight * (share * torch.sqrt(steeper**2 + 1e-4)).mean()
    return loss + recipe.texture_weight * texture_loss(shaded, batch.real, weight, WINDOW_PX), shaded
