"""Sample and augment batches of mouths. Random numbers of batch `step` follow from the seed and `step`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from train.interior.frames import MouthFrames
from train.interior.recipe import InteriorRecipe

GOOD_WIDTH_PX = 100.0  # mouths of this width or more get full weight
WIDEST_PX = 160.0  # mouths of this width or more count as equally sharp
LEAST_AREA = 0.004  # share of the frame that an opening must cover
LEAST_FRAMES = 8  # a film with fewer open mouths is left out
GAIN, TINT, GAMMA = (0.75, 1.15), (0.92, 1.08), (0.8, 1.25)  # ranges of the augmentation of colours


@dataclass(frozen=True)
class MouthBatch:
    """Hold a batch of mouths, of each film views_a_film frames, the first of which is the source image: film (B,) and
    frame (B,), their numbers; maps, geometry and jaw as `LipShape` has them; mask (B, 1, H, W); real (B, 3, H, W) 0..1;
    colour (B, 6); weight (B, 1, 1, 1) of the loss."""

    film: Tensor
    frame: Tensor
    maps: Tensor
    geometry: Tensor
    jaw: Tensor
    mask: Tensor
    real: Tensor
    colour: Tensor
    weight: Tensor

    @property
    def lips(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs of `MouthInterior` that describe the lips."""
        return self.maps, self.geometry, self.jaw


class MouthDataset(Dataset[MouthBatch]):
    """Sample batch `step` at that index: of each of several films a source image and frames with an open mouth."""

    def __init__(self, films: list[MouthFrames], recipe: InteriorRecipe, size: int, rank: int) -> None:
        self._films, self._recipe, self._size, self._rank = films, recipe, size, rank
        areas = ([film.lip_shape(at).mask.mean() for at in range(len(film.pictures))] for film in films)
        self._open = [np.flatnonzero(np.array(area) > LEAST_AREA) for area in areas]
        self.usable = [number for number, frames in enumerate(self._open) if len(frames) >= LEAST_FRAMES]
        self._first = np.cumsum([0, *(len(film.pictures) for film in films)])

    @property
    def frames(self) -> int:
        """Count the frames of all films."""
        return int(self._first[-1])

    def __getitem__(self, step: int) -> MouthBatch:
        views = self._recipe.views_a_film
        rng = np.random.default_rng((self._recipe.seed, step, self._rank))
        films = rng.choice(self.usable, min(self._size // views, len(self.usable)), replace=False)
        rows: list[tuple[int, int]] = []
        for film in films:
            closed = rng.random() < self._recipe.closed_share
            source = rng.integers(len(self._films[film].pictures)) if closed else rng.choice(self._open[film])
            rows += [(film, int(at)) for at in (source, *rng.choice(self._open[film], views - 1))]
        return augment(self.batch(rows), self._recipe, rng, views)

    def evenly(self, film: int, count: int) -> MouthBatch:
        """Return `count` frames with an open mouth, evenly over a film."""
        frames = self._open[film]
        return self.batch([(film, frames[at]) for at in np.linspace(0, len(frames) - 1, count).astype(int)])

    def all_open(self, film: int) -> MouthBatch:
        """Return all frames of a film with an open mouth."""
        return self.batch([(film, int(at)) for at in self._open[film]])

    def sharpest(self, count: int) -> list[int]:
        """Choose films to whose teeth a texture can be fitted: wide mouths, open in many frames, not flipped."""
        usable = [film for film in self.usable if not self._films[film].is_mirrored]
        score = {film: min(self._films[film].width_px, WIDEST_PX) * len(self._open[film]) for film in usable}
        return sorted(score, key=lambda film: -score[film])[:count]

    def batch(self, rows: list[tuple[int, int]]) -> MouthBatch:
        """Collect the frames (film, number in it)."""
        lips = [self._films[film].lip_shape(at) for film, at in rows]
        maps, geometry, jaw, mask = (
            torch.from_numpy(np.stack([getattr(one, name) for one in lips]))
            for name in ("maps", "geometry", "jaw", "mask")
        )
        real = torch.from_numpy(np.stack([self._films[film].pictures[at] for film, at in rows]))
        colour = torch.from_numpy(np.stack([self._films[film].colour for film, _ in rows]).astype(np.float32))
        weight = torch.tensor([min(1.0, self._films[film].width_px / GOOD_WIDTH_PX) for film, _ in rows])
        return MouthBatch(
            film=torch.tensor([film for film, _ in rows]),
            frame=torch.tensor([self._first[film] + at for film, at in rows]),
            maps=maps,
            geometry=geometry,
            jaw=jaw,
            mask=mask[:, None],
            real=rearrange(real, "b h w c -> b c h w") / 255,
            colour=colour,
            weight=weight.reshape(-1, 1, 1, 1),
        )


def augment(batch: MouthBatch, recipe: InteriorRecipe, rng: np.random.Generator, views: int) -> MouthBatch:
    """Change the colours of each film's `views` pictures alike, with those of skin and lips: gain, tint, gamma, and
    greyscale for some."""
    size = len(batch.real) // views
    gain = rng.uniform(*GAIN, (size, 1)) * rng.uniform(*TINT, (size, 3))
    gamma, grey = rng.uniform(*GAMMA, (size, 1)), rng.random((size, 1)) < recipe.grey
    curves = [
        torch.from_numpy(values.astype(np.float32)).repeat_interleave(views, 0)[..., None]
        for values in (gain, gamma, grey)
    ]

    def change(colours: Tensor) -> Tensor:
        gain, gamma, grey = curves
        changed = (colours.clamp(1e-3, 1) ** gamma * gain).clamp(0, 1)
        return changed + grey * (changed.mean(1, keepdim=True) - changed)

    real = change(batch.real.flatten(2)).reshape(batch.real.shape)
    colour = change(rearrange(batch.colour, "b (part c) -> b c part", c=3))
    changed = vars(batch) | {"real": real, "colour": rearrange(colour, "b c part -> b (part c)")}
    return MouthBatch(**changed)
