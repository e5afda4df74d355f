"""Takes to batches of windows. All that is random about batch number `step` follows from the seed and `step`, so that
a training that was stopped goes on with the batches that it would have seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.renderers.mesh.geometry import FaceModel
from train.motion.dataset import Clip, mirror
from train.motion.recipe import Recipe

CORPUS_TAKES = 50  # speakers with more takes than this together get the recipe's corpus_share of the windows


@dataclass(frozen=True)
class Batch:
    """x (B, F, 70) is normalised; known (B, F) bool: frames that the window continues from; features (B, F, C) float16;
    canonical (B, 63), reference (B, 70) the portrait's, normalised."""

    x: Tensor
    known: Tensor
    features: Tensor
    canonical: Tensor
    reference: Tensor


class Windows(Dataset[Batch]):
    """Batch number `step` under that index: `size` windows of one length, drawn by `rank` of several processes."""

    def __init__(self, takes: list[Clip], normalisation: Normalisation, recipe: Recipe, size: int, rank: int) -> None:
        """Raises InputError where every take is shorter than a window."""
        self._recipe, self._normalisation, self._size, self._rank = recipe, normalisation, size, rank
        self._face = FaceModel.load() if recipe.mirror else None
        self._takes = [take for take in takes if len(take.motion) > recipe.shortest_window]
        longest = max((len(take.motion) for take in takes), default=0)
        if longest < recipe.model.window:
            raise InputError(f"A window of the model has {recipe.model.window} frames, the longest stretch of film to "
                             f"learn from {longest}; prepare longer films or set [model] window.")  # fmt: skip
        self._shares = _shares(self._takes, recipe.corpus_share)

    def __getitem__(self, step: int) -> Batch:
        recipe, config = self._recipe, self._recipe.model
        rng = np.random.default_rng((recipe.seed, step, self._rank))
        length = config.window
        if rng.random() < recipe.shorter_share:
            length = int(rng.integers(recipe.shortest_window, config.window + 1))
        rows = []
        while len(rows) < self._size:
            take = self._takes[rng.choice(len(self._takes), p=self._shares)]
            if len(take.motion) >= length:
                rows.append(self._window(take, length, rng))
        x, features, canonical, reference = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        known = torch.zeros(x.shape[:2], dtype=torch.bool)
        if config.context:
            context = rng.integers(1, config.context + 1, self._size)
            context *= rng.random(self._size) >= recipe.context_drop
            known = torch.arange(length)[None] < torch.from_numpy(context)[:, None]
        return Batch(x, known, features, canonical, reference)

    def _window(self, take: Clip, length: int, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """Normalised motion, features, canonical keypoints and a reference: where the model knows no frames before the
        window the last of those, and else a photograph of that person, some frame's face in the resting pose."""
        config = self._recipe.model
        start = int(rng.integers(0, len(take.motion) - length + 1))
        frame = int(rng.integers(len(take.motion))) if config.context else max(start - 1, 0)
        motion = np.concatenate([take.motion[start : start + length], take.motion[frame : frame + 1]])
        canonical = take.canonical
        if self._face is not None and rng.random() < 0.5:
            motion, canonical = mirror(motion, canonical, self._face)
        if config.relative:
            motion[-1, 1:7] = 0
        noise = rng.standard_normal(canonical.size).astype(np.float32)
        seen = self._normalisation.normalise_canonical(canonical.reshape(-1)) + self._recipe.canonical_noise * noise
        normalised = self._normalisation.normalise(motion)
        features = np.asarray(take.features[start : start + length])
        return normalised[:-1], features, seen.astype(np.float32), normalised[-1]


def _shares(takes: list[Clip], corpus_share: float) -> Array:
    """How likely each take is: by its length, but for the share of those who speak in very many takes."""
    counts = {take.speaker: sum(other.speaker == take.speaker for other in takes) for take in takes}
    is_corpus = np.array([counts[take.speaker] > CORPUS_TAKES for take in takes])
    shares = np.array([len(take.motion) for take in takes], float)
    if is_corpus.any() and not is_corpus.all():
        for group, share in ((is_corpus, corpus_share), (~is_corpus, 1 - corpus_share)):
            shares[group] *= share / shares[group].sum()
    weights: Array = shares / shares.sum()
    return weights
