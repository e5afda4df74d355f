"""Measure a student on the validation split while it is trained: phones, features, and motion from its own history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdtalker.audio.causal import mel_of_sound
from kdtalker.core.arrays import Array
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.diffusion.normalisation import Normalisation
from train.distil.arm import Arm, draw_noise, generate
from train.distil.cache import TeacherRecord
from train.distil.distiller import kl_divergence
from train.distil.figures import linear_cka, phone_figures
from train.distil.measure.motion import (
    ENDS_S,
    SEEDS,
    draw_lips,
    endurance_figures,
    motion_figures,
    phone_closures,
    teacher_figures,
)
from train.distil.phones import known
from train.harness.figures import Metrics

LONG_RUN_S = 60  # of a long run, whose sound is a clip's first seconds again and again
LONG_RUNS = 4  # of so many clips, the longest
COMPARED_FRAMES = 2000  # most frames on which features are compared


@dataclass(frozen=True)
class StudentMeter:
    """Measure a student on clips. normalisation: of motion; filters: of mel; delay: frames by which it was taught later
    than the teacher."""

    arm: Arm
    normalisation: Normalisation
    filters: Array
    delay: int = 0

    @torch.no_grad()
    def measure(self, records: Sequence[TeacherRecord]) -> tuple[Metrics, dict[str, Metrics]]:
        """Measure clips; return means over those that have a figure, and the figures of each clip. The means also hold
        CKA, the likeness of features over all clips, and figures of long runs."""
        clips, ours, theirs = {}, [], []
        for record in records:
            features = self._encode(record.sound)
            clips[record.name] = self._measure_clip(record, features)
            late = len(record.labels) - self.delay
            ours.append(features[0, self.delay :].cpu().numpy())
            theirs.append(np.asarray(record.features[:late], np.float32))
        if not records:
            return {}, {}
        rows = [np.concatenate(features) for features in (ours, theirs)]
        step = -(-len(rows[0]) // COMPARED_FRAMES)
        means = average(clips) | {"CKA": linear_cka(rows[0][::step], rows[1][::step])}
        return means | self._measure_long_runs(records), clips

    def _measure_clip(self, record: TeacherRecord, features: Tensor) -> Metrics:
        """Compute the agreement with the teacher's phones, and phone figures where there are labels; figures of motion
        against real motion where there is some, else of the mouth against the teacher's."""
        late = len(record.labels) - self.delay
        logits, labels = self.arm.phones(features)[0, self.delay :].cpu(), record.labels[:late]
        teacher = self.arm.probe[0].cpu()(torch.from_numpy(np.asarray(record.features[:late], np.float32)))
        agrees = (teacher.argmax(-1) == logits.argmax(-1)).float().mean()
        figures = {"KL": kl_divergence(teacher, logits).mean().item(), "agreement": agrees.item()}
        made = self._generate(features.expand(SEEDS, -1, -1), record.portrait[None].repeat(SEEDS, 0))
        if known(labels).any():
            figures |= phone_figures(logits.numpy(), labels) | phone_closures(draw_lips(made)[:, self.delay :], labels)
        if record.has_motion:
            return figures | motion_figures(made, self.normalisation.restore(record.motion))
        return figures | teacher_figures(made, self.normalisation.restore(np.asarray(record.samples, np.float32)))

    def _measure_long_runs(self, records: Sequence[TeacherRecord]) -> Metrics:
        """Generate a minute each of the longest clips, all seeds in one batch."""
        samples, frames = ENDS_S * FRAME_RATE_HZ * SAMPLES_PER_FRAME, LONG_RUN_S * FRAME_RATE_HZ
        longest = sorted(records, key=lambda record: -len(record.labels))[:LONG_RUNS]
        sounds = [np.resize(np.resize(one.sound, samples), frames * SAMPLES_PER_FRAME) for one in longest]
        features = torch.cat([self._encode(sound) for sound in sounds])
        portraits = np.stack([record.portrait for record in longest]).repeat(SEEDS, 0)
        return endurance_figures(self._generate(features.repeat_interleave(SEEDS, 0), portraits))

    def _encode(self, sound: NDArray[np.floating]) -> Tensor:
        """Encode a sound (640 T,) to features (1, T, C), silence after it."""
        student, device = self.arm.student, self.arm.phones.weight.device
        ahead = student.config.encoder.lookahead_frames * SAMPLES_PER_FRAME
        columns = mel_of_sound(np.pad(sound, (0, ahead)).astype(np.float32), self.filters)
        features: Tensor = student.encoder(torch.from_numpy(columns)[None].to(device))[-1]
        return features

    def _generate(self, features: Tensor, portraits: Array) -> Array:
        """Generate motion vectors (N, T, 70) from features (N, T, C), row by row of seeds 0, 1 … and again."""
        motion, frames = self.arm.student.motion, features.shape[1]
        noise = torch.cat([draw_noise(motion, 1, frames, torch.Generator().manual_seed(row % SEEDS))
                           for row in range(len(features))])  # fmt: skip
        rows = torch.from_numpy(portraits).to(features)
        made = generate(motion, features, rows, noise.to(features))
        return self.normalisation.restore(made.cpu().numpy())


def average(clips: dict[str, Metrics]) -> Metrics:
    """Average each figure over the clips that have it."""
    names = sorted({name for figures in clips.values() for name in figures})
    return {name: float(np.mean([one[name] for one in clips.values() if name in one])) for name in names}
