"""Sample batches of windows from the teacher's records. Random numbers of batch `step` follow from the seed and `step`,
so all arms of one seed see the same windows in the same order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from kdtalker.audio.causal import mel_columns
from kdtalker.audio.mel import MEL_BANDS, MEL_HOP, MEL_WINDOW
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import SAMPLES_PER_FRAME
from train.data.augment import perturb_sound
from train.distil.cache import TeacherRecord, show_frame
from train.distil.distiller import DistilBatch
from train.distil.recipe import DistilRecipe

LOUDER_DB = (-12.0, 6.0)  # range of the level of augmented sound
FIRST_SHARE = 0.1  # of the windows, which begin with the clip
_KEPT_SAMPLES = MEL_WINDOW - MEL_HOP

Row = tuple[Array, ...]


class DistilDataset(Dataset[DistilBatch]):
    """Sample batch `step` at that index: `size` windows, for process `rank`. Clips come by the root of their length, so
    that few long ones do not speak for all."""

    def __init__(
        self, records: list[TeacherRecord], recipe: DistilRecipe, filters: Array, size: int, rank: int
    ) -> None:
        """Keep clips longer than a window. Raises InputError where there are none."""
        least = recipe.frames + recipe.delay
        self._records = [record for record in records if len(record.labels) >= least]
        if not self._records:
            raise InputError(f"No clip has {least} frames, the length of a window; set `frames` lower.")
        self._recipe, self._filters, self._size, self._rank = recipe, filters, size, rank
        shares = np.sqrt([len(record.labels) for record in self._records])
        self._shares = shares / shares.sum()

    def __getitem__(self, step: int) -> DistilBatch:
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, step, self._rank))
        rows = []
        for number in rng.choice(len(self._records), self._size, p=self._shares):
            record = self._records[number]
            start = int(rng.integers(recipe.delay, len(record.labels) - recipe.frames + 1))
            start = recipe.delay if rng.random() < FIRST_SHARE else start
            rows.append(self._window(record, start, rng))
        batch = stack(rows)
        if recipe.shuffles_teacher:
            before = torch.cat([batch.before[:, :1], batch.before[:, 1:].roll(1, 0)], 1)
            features, samples = batch.features.roll(1, 0), batch.samples.roll(1, 0)
            batch = replace(batch, features=features, samples=samples, before=before)
        return batch

    def _window(self, record: TeacherRecord, start: int, rng: np.random.Generator) -> Row:
        """Cut a window: the student hears from frame `start` on, what it is taught lies `delay` frames before."""
        recipe = self._recipe
        taught = slice(start - recipe.delay, start - recipe.delay + recipe.frames)
        ahead = recipe.student.encoder.lookahead_frames
        columns = cut_columns(record, start, recipe.frames + ahead, self._filters, rng if recipe.augments else None)
        columns = _mask(columns, recipe.mask_share, rng) if recipe.augments else columns
        portrait = record.portrait
        if recipe.portrait_share and rng.random() < recipe.portrait_share:
            motion = record.motion if record.has_motion else record.samples[0]
            portrait = show_frame(portrait, np.asarray(motion[int(rng.integers(len(motion)))], np.float32))
        return columns, *cut_targets(record, taught, portrait)


def cut_targets(record: TeacherRecord, taught: slice, portrait: Array) -> Row:
    """Cut labels, motion, whether it counts, the portrait, features and samples of these frames, and the frames
    before."""
    first, own = taught.start, portrait[None, -MOTION_WIDTH:]
    before = [track[first - 1][None] if first else own for track in (record.motion, *record.samples)]
    return (
        record.labels[taught].astype(np.int64),  # type: ignore[return-value]
        np.ascontiguousarray(record.motion[taught]),
        np.float32(record.has_motion),
        portrait,
        np.array(record.features[taught]),
        np.asarray(record.samples[:, taught], np.float32),
        np.concatenate(before).astype(np.float32),
    )


def cut_columns(
    record: TeacherRecord, start: int, frames: int, filters: Array, rng: np.random.Generator | None
) -> Array:
    """Compute scaled log-mel (4 frames, 80) from frame `start` on, silence beyond the clip; of augmented sound where
    there is a generator."""
    first, last = start * SAMPLES_PER_FRAME - _KEPT_SAMPLES, (start + frames) * SAMPLES_PER_FRAME
    heard = record.sound[max(0, first) : last].astype(np.float32)
    sound = np.pad(heard, (max(0, -first), last - max(0, first) - len(heard)))
    if rng is not None:
        level = np.float32(10 ** (float(rng.uniform(*LOUDER_DB)) / 20))
        sound = np.clip(perturb_sound(sound, rng) * level, -1, 1)
    return mel_columns(sound, filters)


def _mask(columns: Array, share: float, rng: np.random.Generator) -> Array:
    """Hide a stretch of mel bands and one of time (SpecAugment, arXiv 1904.08779), each up to `share` wide."""
    masked, floor = columns.copy(), columns.min()
    for axis, length in ((0, len(columns)), (1, MEL_BANDS)):
        width = int(rng.integers(0, int(share * length) + 1))
        start = int(rng.integers(0, length - width + 1))
        masked[(slice(start, start + width), slice(None))[:: 1 if axis == 0 else -1]] = floor
    return masked


def stack(rows: list[Row]) -> DistilBatch:
    """Stack windows of one length."""
    return DistilBatch(*(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)))
