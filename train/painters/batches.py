"""Sample and augment batches of pairs. Random numbers of batch `step` follow from the seed and `step`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kdtalker.renderers.mesh.eyes.unet import normalise_views
from train.painters.pairs import GOOD_EYES_PX, Pairs, Pictures
from train.painters.recipe import PainterRecipe


@dataclass(frozen=True)
class PainterBatch:
    """Hold a batch of pairs: views (B, 6, side, side) in -1..1 of the warped part and of the source image's; target
    `real` (B, 3, side, side); appears (B, 1, 1, 1), opacity of the painting; weight (B, 1, 1, 1) of the loss."""

    warped: Tensor
    photographed: Tensor
    real: Tensor
    appears: Tensor
    weight: Tensor


class PairDataset(Dataset[PainterBatch]):
    """Sample batch `step` at that index: films by the root of their length times sharpness, pairs by how much the
    opening has changed."""

    def __init__(self, films: list[Pairs], recipe: PainterRecipe, size: int, rank: int) -> None:
        self._films, self._recipe, self._size, self._rank = films, recipe, size, rank
        share = np.array([len(film.which) ** 0.5 * _sharpness_weight(film) for film in films])
        self._share = share / share.sum()
        opened = [recipe.unmoved_share + _opening_change(film) for film in films]
        self._frames = [share / share.sum() for share in opened]

    def __getitem__(self, step: int) -> PainterBatch:
        rng = np.random.default_rng((self._recipe.seed, step, self._rank))
        warped: list[Pictures] = []
        photographed: list[Pictures] = []
        real: list[Pictures] = []
        appears, weight = [], []
        for film in rng.choice(len(self._films), self._size, p=self._share):
            pairs = self._films[film]
            row = rng.choice(len(pairs.which), p=self._frames[film])
            three = (pairs.warped[row], pairs.photographed[pairs.which[row]], pairs.real[row])
            for into, picture in zip((warped, photographed, real), augment(three, self._recipe, rng), strict=True):
                into.append(picture)
            appears.append(pairs.appears[row])
            weight.append(_sharpness_weight(pairs))
        views = (torch.from_numpy(np.stack(pictures)) for pictures in (warped, photographed, real))
        return PainterBatch(
            *(normalise_views(pictures).contiguous(memory_format=torch.channels_last) for pictures in views),
            *(torch.tensor(np.array(one, np.float32)).reshape(-1, 1, 1, 1) for one in (appears, weight)),
        )


def _opening_change(film: Pairs) -> NDArray[np.float64]:
    """Compute by how much the area of each pair's opening differs from the source image's (N,), relative to the
    crop."""
    warped, photographed = (views[..., 3].mean((1, 2)) / 255 for views in (film.warped, film.photographed))
    opened: NDArray[np.float64] = np.abs(warped - photographed[film.which])
    return opened


def _sharpness_weight(film: Pairs) -> float:
    """Weigh a film by the size of its face, 1 from GOOD_EYES_PX on."""
    return min(1.0, film.eyes_px / GOOD_EYES_PX)


def augment(
    pictures: tuple[NDArray[np.uint8], ...], recipe: PainterRecipe, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Augment a pair (warped, source, real): random gain, gamma, contrast, greyscale, film grain and mirroring.

    Warped and real part share their grain outside the opening, so that a painter learns to leave it alone."""
    levels = np.arange(256) / 255
    gain, gamma, contrast = rng.uniform(0.8, 1.2, 3) * rng.uniform(0.75, 1.25), *rng.uniform((0.75, 0.8), (1.35, 1.5))
    curves = 127.5 + contrast * (255 * gain * levels[:, None] ** gamma - 127.5)
    mirrored, grey = rng.random() < 0.5, rng.random() < recipe.grey
    strength, fineness = max(0, rng.uniform(-recipe.most_grain, recipe.most_grain)), rng.uniform(0.4, 1.3)
    grains = [_grain(pictures[0].shape[0], fineness, rng) for _ in range(2)] if strength else [0, 0]
    closed = 1 - pictures[0][..., 3:4] / 255
    changed_pictures = []
    for picture, grain in zip(pictures, (grains[0], grains[1], grains[0] * closed), strict=True):
        colours = np.stack([curves[picture[..., channel], channel] for channel in range(3)], -1)
        colours = colours.mean(-1, keepdims=True) if grey else colours
        changed = picture.copy()
        changed[..., :3] = np.clip(colours + strength * grain, 0, 255)
        changed_pictures.append(np.ascontiguousarray(changed[:, ::-1] if mirrored else changed))
    return changed_pictures


def _grain(side_px: int, fineness: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw smoothed noise (side_px, side_px, 1) of standard deviation 1."""
    grain = cv2.GaussianBlur(rng.standard_normal((side_px, side_px), np.float32), (0, 0), fineness)
    return np.asarray(grain / grain.std(), np.float32)[..., None]
