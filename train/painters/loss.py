"""What a painter is trained to make small: differences from the real part, and what a critic holds against it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.parts import border_taper
from train.painters.batches import Batch
from train.painters.recipe import PainterRecipe


class Critic(nn.Module):
    """Patches of a painted part and its maps, (B, 6, side, side), to how real each looks; the features on the way."""

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


def painted(painter: Callable[[Tensor, Tensor], tuple[Tensor, ...]], batch: Batch) -> tuple[Tensor, Tensor]:
    """The part as it comes into the film, (B, 3, side, side), and how much of it is painted (B, 1, side, side)."""
    change, taken, covers = (one.float() for one in painter(batch.warped, batch.photographed))
    covers = batch.appears * covers * torch.from_numpy(border_taper(covers.shape[-1])).to(covers.device)
    under, own = batch.warped[:, :3], batch.photographed[:, :3]
    return under + covers * (change + taken * (own - under - change)), covers


def likeness(made: Tensor, covers: Tensor, batch: Batch, recipe: PainterRecipe) -> Tensor:
    """The loss without a critic."""
    maps = (batch.warped[:, 3:5] + 1) / 2
    inside, around = F.max_pool2d(maps, 5, 1, 2).split(1, 1)
    counts = 1 + recipe.around_weight * around
    if not recipe.keeps_inside:
        counts = counts + recipe.inside_weight * inside
    weight = batch.weight * counts
    error = (weight * (made - batch.real).abs()).mean()
    for axis in (2, 3):
        steeper = (made - batch.real).diff(dim=axis).abs()
        error = error + recipe.gradient_weight * (weight.narrow(axis, 1, steeper.shape[axis]) * steeper).mean()
    spared = maps[:, :1] if recipe.keeps_inside else 1 - around
    return error + recipe.cover_weight * (covers * spared).mean()


def doubts(critic: Callable[[Tensor], list[Tensor]], made: Tensor, batch: Batch) -> Tensor:
    """The critic's own loss: real parts above 1, made ones below -1 (hinge)."""
    parts, maps = torch.cat([batch.real, made.detach()]), batch.warped[:, 3:].repeat(2, 1, 1, 1)
    real, false = critic(torch.cat([parts, maps], 1))[-1].chunk(2)
    return (batch.weight * (F.relu(1 - real) + F.relu(1 + false))).mean()


def verdict(critic: Callable[[Tensor], list[Tensor]], made: Tensor, batch: Batch, recipe: PainterRecipe) -> Tensor:
    """What the critic holds against the painter."""
    maps = batch.warped[:, 3:]
    *features, real_looking = critic(torch.cat([made, maps], 1))
    with torch.no_grad():
        *wanted, _ = critic(torch.cat([batch.real, maps], 1))
    match = sum(
        ((batch.weight * (one - other)).abs().mean() for one, other in zip(features, wanted, strict=True)),
        torch.zeros((), device=made.device),
    )
    return recipe.critic_weight * (recipe.match_weight * match - (batch.weight * real_looking).mean())
