"""Sample and augment batches of pairs. Random numbers of batch `step` follow from the seed and `step`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kdtalker.renderers.mesh.mouth.shading import MOST_DISPLACEMENT_PX
from train.shading.pairs import ShadingPairs
from train.shading.recipe import ShadingRecipe

GOOD_WIDTH_PX = 90.0  # mouths of this width or more get full weight
GAIN, TINT, GAMMA = (0.75, 1.15), (0.93, 1.07), (0.8, 1.25)  # ranges of the augmentation of colours


@dataclass(frozen=True)
class ShadingBatch:
    """Hold a batch of pairs: warped and real (B, 3, SIDE_PX, SIDE_PX) 0..1, mask (B, 1, ...) of the opening,
    displacement (B, 2, ...) px, weight (B, 1, 1, 1) of the loss."""

    warped: Tensor
    mask: Tensor
    displacement: Tensor
    real: Tensor
    weight: Tensor


class ShadingDataset(Dataset[ShadingBatch]):
    """Sample batch `step` at that index: some pairs of each of several films."""

    def __init__(self, films: list[ShadingPairs], recipe: ShadingRecipe, size: int, rank: int) -> None:
        self._films, self._recipe, self._size, self._rank = films, recipe, size, rank

    def __getitem__(self, step: int) -> ShadingBatch:
        recipe, rng = self._recipe, np.random.default_rng((self._recipe.seed, step, self._rank))
        count = min(max(1, self._size // recipe.pairs_a_film), len(self._films))
        batches = []
        for film in rng.choice(len(self._films), count, replace=False):
            pairs = self._films[film]
            rows = rng.choice(len(pairs.real), min(recipe.pairs_a_film, len(pairs.real)), replace=False)
            batches.append(augment(batch_of(pairs, rows), recipe, rng))
        return ShadingBatch(**{name: torch.cat([vars(one)[name] for one in batches]) for name in vars(batches[0])})


def batch_of(pairs: ShadingPairs, rows: NDArray[np.int64]) -> ShadingBatch:
    """Collect some pairs of a film."""
    warped, real = (
        rearrange(torch.from_numpy(pictures[rows]), "b h w c -> b c h w").float() / 255
        for pictures in (pairs.warped, pairs.real)
    )
    displacement = torch.from_numpy(pairs.displacement[rows].astype(np.float32))
    return ShadingBatch(
        warped,
        torch.from_numpy(pairs.opening[rows])[:, None].float() / 255,
        displacement.clamp(-MOST_DISPLACEMENT_PX, MOST_DISPLACEMENT_PX),
        real,
        torch.full((len(rows), 1, 1, 1), min(1.0, pairs.width_px / GOOD_WIDTH_PX)),
    )


def augment(batch: ShadingBatch, recipe: ShadingRecipe, rng: np.random.Generator) -> ShadingBatch:
    """Change the colours of warped and real pictures alike by gain, tint and gamma; some become greyscale, some are
    flipped horizontally."""
    gain = torch.from_numpy((rng.uniform(*GAIN) * rng.uniform(*TINT, 3)).astype(np.float32))[:, None, None]
    gamma, grey, flip = rng.uniform(*GAMMA), rng.random() < recipe.grey, recipe.mirror and rng.random() < 0.5

    def change(picture: Tensor) -> Tensor:
        changed = (picture.clamp(1e-3, 1) ** gamma * gain).clamp(0, 1)
        return changed.mean(1, keepdim=True).expand_as(changed) if grey else changed

    warped, mask, displacement, real = change(batch.warped), batch.mask, batch.displacement, change(batch.real)
    if flip:
        warped, mask, displacement, real = (values.flip(3) for values in (warped, mask, displacement, real))
        displacement = displacement * torch.tensor([-1.0, 1.0])[:, None, None]
    return ShadingBatch(warped, mask, displacement, real, batch.weight)
