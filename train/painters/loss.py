"""Compute the losses of a painter: reconstruction, adversarial (hinge) and feature matching."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.eyes.parts import border_taper
from train.painters.batches import PainterBatch
from train.painters.recipe import PainterRecipe


class PatchDiscriminator(nn.Module):
    """Score patches as real or painted (PatchGAN, Isola et al. 2017): a part with its maps (B, 6, side, side) to the
    features of each layer and, last, the scores."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 128)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1))
            for inner, outer in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.last(x)]


def composite(painter: Callable[[Tensor, Tensor], tuple[Tensor, ...]], batch: PainterBatch) -> tuple[Tensor, Tensor]:
    """Composite the painting over the warped part: the result (B, 3, side, side) and its alpha (B, 1, side, side)."""
    change, taken, covers = (one.float() for one in painter(batch.warped, batch.photographed))
    covers = batch.appears * covers * torch.from_numpy(border_taper(covers.shape[-1])).to(covers.device)
    under, own = batch.warped[:, :3], batch.photographed[:, :3]
    return under + covers * (change + taken * (own - under - change)), covers


def reconstruction_loss(made: Tensor, covers: Tensor, batch: PainterBatch, recipe: PainterRecipe) -> Tensor:
    """Compute the weighted L1 loss of colours and gradients, with a penalty on alpha where the warp is to be kept."""
    maps = (batch.warped[:, 3:5] + 1) / 2
    around = F.max_pool2d(maps[:, 1:], 5, 1, 2)
    weight = batch.weight * (1 + recipe.around_weight * around)
    error: Tensor = (weight * (made - batch.real).abs()).mean()
    for axis in (2, 3):
        steeper = (made - batch.real).diff(dim=axis).abs()
        error = error + recipe.gradient_weight * (weight.narrow(axis, 1, steeper.shape[axis]) * steeper).mean()
    return error + recipe.cover_weight * (covers * maps[:, :1]).mean()


def discriminator_loss(discriminator: Callable[[Tensor], list[Tensor]], made: Tensor, batch: PainterBatch) -> Tensor:
    """Compute the hinge loss of the discriminator: scores of real parts above 1, of painted ones below -1."""
    parts, maps = torch.cat([batch.real, made.detach()]), batch.warped[:, 3:].repeat(2, 1, 1, 1)
    real, false = discriminator(torch.cat([parts, maps], 1))[-1].chunk(2)
    return (batch.weight * (F.relu(1 - real) + F.relu(1 + false))).mean()


def generator_loss(
    discriminator: Callable[[Tensor], list[Tensor]], made: Tensor, batch: PainterBatch, recipe: PainterRecipe
) -> Tensor:
    """Compute the painter's adversarial loss (hinge) with feature matching (pix2pixHD, arXiv 1711.11585)."""
    maps = batch.warped[:, 3:]
    *features, score = discriminator(torch.cat([made, maps], 1))
    with torch.no_grad():
        *wanted, _ = discriminator(torch.cat([batch.real, maps], 1))
    match = sum(
        ((batch.weight * (one - other)).abs().mean() for one, other in zip(features, wanted, strict=True)),
        torch.zeros((), device=made.device),
    )
    return recipe.critic_weight * (recipe.match_weight * match - (batch.weight * score).mean())
