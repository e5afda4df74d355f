"""Sample batches of windows as live sound has them: encoded when they are drawn, from sound that ends soon after the
hop. Random numbers of batch `step` follow from the seed and `step`."""

from __future__ import annotations

import numpy as np

from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sliding import HOP_FRAMES, MOUTH_FRAMES
from train.motion.dataset import Clip
from train.motion.recipe import Recipe
from train.motion.windows import MotionBatch, Row, WindowDataset, stack_rows

HEARD = (14, 25)  # range of the frames that are heard before a hop; the end is left out
ROWS_A_SOUND = 2  # windows of a batch that share an encoded sound, with other noise and side


class SlidingWindowDataset(WindowDataset):
    """Sample batch `step` at that index: windows of the mouth of live sound, without known frames. How many frames are
    heard after the hop is drawn for each batch from the recipe's lookahead."""

    def __init__(
        self,
        clips: list[Clip],
        normalisation: Normalisation,
        recipe: Recipe,
        size: int,
        rank: int,
        *,
        encoder: WhisperEncoder,
    ) -> None:
        super().__init__([clip for clip in clips if clip.sound], normalisation, recipe, size, rank)
        self._encoder = encoder

    def __getitem__(self, step: int) -> MotionBatch:
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, step, self._rank))
        new = HOP_FRAMES + int(rng.integers(recipe.lookahead[0], recipe.lookahead[1] + 1))
        length, encoder = MOUTH_FRAMES + new, self._encoder.sliding(int(rng.integers(*HEARD)) + new)
        rows: list[Row] = []
        while len(rows) < self._size:
            clip = self._draw_clip(rng)
            if len(clip.motion) < length or clip.sound is None:
                continue
            end = int(rng.integers(length, len(clip.motion) + 1))
            features = clip.sound.encode(encoder, end)[-length:]
            rows += [self._window(clip, end - length, features, rng) for _ in range(ROWS_A_SOUND)]
        return stack_rows(rows[: self._size], np.zeros(self._size, int))
