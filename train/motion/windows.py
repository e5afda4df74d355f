"""Sample batches of windows from clips. Random numbers of batch `step` follow from the seed and `step`, so that a
resumed training sees the batches that it would have seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.sync import CORPUS_TAKES
from train.motion.dataset import Clip, mirror
from train.motion.recipe import Recipe

Row = tuple[Array, Array, Array, Array]  # of a batch: motion, features, canonical keypoints and reference


@dataclass(frozen=True)
class MotionBatch:
    """Hold a batch of windows: x (B, F, 70) normalised motion; known (B, F) bool, context frames that are given;
    features (B, F, C) float16; canonical (B, 63) and reference (B, 70) of the source image, normalised."""

    x: Tensor
    known: Tensor
    features: Tensor
    canonical: Tensor
    reference: Tensor


class WindowDataset(Dataset[MotionBatch]):
    """Sample batch `step` at that index: `size` windows of one length, for process `rank`."""

    def __init__(self, clips: list[Clip], normalisation: Normalisation, recipe: Recipe, size: int, rank: int) -> None:
        """Keep clips longer than the shortest window. Raises InputError where all are shorter than the model's."""
        self._recipe, self._normalisation, self._size, self._rank = recipe, normalisation, size, rank
        self._face = FaceModel.load() if recipe.mirror else None
        self._clips = [clip for clip in clips if len(clip.motion) > recipe.shortest_window]
        longest = max((len(clip.motion) for clip in clips), default=0)
        if longest < recipe.longest_window:
            raise InputError(f"A window of the model has {recipe.longest_window} frames, the longest stretch of film "
                             f"to learn from {longest}; prepare longer films or set [model] window.")  # fmt: skip
        self._shares = _shares(self._clips, recipe.corpus_share)

    def __getitem__(self, step: int) -> MotionBatch:
        recipe, config = self._recipe, self._recipe.model
        rng = np.random.default_rng((recipe.seed, step, self._rank))
        length = config.window
        if rng.random() < recipe.shorter_share:
            length = int(rng.integers(recipe.shortest_window, config.window + 1))
        rows: list[Row] = []
        while len(rows) < self._size:
            clip = self._draw_clip(rng)
            if len(clip.motion) >= length:
                start = int(rng.integers(0, len(clip.motion) - length + 1))
                rows.append(self._window(clip, start, np.asarray(clip.features[start : start + length]), rng))
        context = rng.integers(1, config.context + 1, self._size) if config.context else np.zeros(self._size, int)
        context *= rng.random(self._size) >= recipe.context_drop
        return stack_rows(rows, context)

    def _draw_clip(self, rng: np.random.Generator) -> Clip:
        clip = self._clips[rng.choice(len(self._clips), p=self._shares)]
        return (clip, *clip.copies)[rng.integers(1 + len(clip.copies))]

    def _window(self, clip: Clip, start: int, features: Array, rng: np.random.Generator) -> Row:
        """Cut a window at frame `start`: normalised motion, its features (F, C), canonical keypoints and reference. The
        reference is a random frame of the clip in the resting pose, or the frame before the window for models without
        context frames."""
        config, length = self._recipe.model, len(features)
        frame = int(rng.integers(len(clip.motion))) if config.context else max(start - 1, 0)
        motion = np.concatenate([clip.motion[start : start + length], clip.motion[frame : frame + 1]])
        canonical = clip.canonical
        if self._face is not None and rng.random() < 0.5:
            motion, canonical = mirror(motion, canonical, self._face)
        if config.relative:
            motion[-1, 1:7] = 0
        noise = rng.standard_normal(canonical.size).astype(np.float32)
        source = self._normalisation.normalise_canonical(canonical.reshape(-1)) + self._recipe.canonical_noise * noise
        normalised = self._normalisation.normalise(motion)
        return normalised[:-1], features, source.astype(np.float32), normalised[-1]


def stack_rows(rows: list[Row], context: NDArray[np.integer]) -> MotionBatch:
    """Stack windows of one length, of which the first `context` (B,) frames are known."""
    x, features, canonical, reference = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
    known = torch.arange(x.shape[1])[None] < torch.from_numpy(context)[:, None]
    return MotionBatch(x, known, features, canonical, reference)


def _shares(clips: list[Clip], corpus_share: float) -> Array:
    """Compute the probability of each clip: by its length; speakers with more than CORPUS_TAKES together get
    corpus_share."""
    counts = {clip.speaker: sum(other.speaker == clip.speaker for other in clips) for clip in clips}
    is_corpus = np.array([counts[clip.speaker] > CORPUS_TAKES for clip in clips])
    shares = np.array([len(clip.motion) for clip in clips], float)
    if is_corpus.any() and not is_corpus.all():
        for group, share in ((is_corpus, corpus_share), (~is_corpus, 1 - corpus_share)):
            shares[group] *= share / shares[group].sum()
    weights: Array = shares / shares.sum()
    return weights
