"""Measure the teacher as students are measured: the ceiling of what they can learn, of features as they are and, from
another cache, of features that hear no further than a student."""

from __future__ import annotations

import numpy as np
import torch

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from train.distil.cache import TeacherRecord
from train.distil.figures import phone_figures
from train.distil.phones import known
from train.distil.probe import PhoneProbe
from train.harness.curves import best_lag, correlation
from train.harness.figures import Metrics


@torch.no_grad()
def measure_teacher(records: list[TeacherRecord], probe: PhoneProbe, mouth: Array) -> Metrics:
    """Measure the validation split, means over clips: phone figures of the probe; mouth (63,) r of one sample and of
    the mean of all, amplitude and lag of one, against real motion. Raises InputError where the split is empty."""
    chosen = [record for record in records if record.split == "val"]
    if not chosen:
        raise InputError("No clip is of the split 'val'; name some in a table (--table).")
    clips = []
    for record in chosen:
        logits = probe(torch.from_numpy(record.features.astype(np.float32))).numpy()
        figures = phone_figures(logits, record.labels) if known(record.labels).any() else {}
        clips.append(figures | (_motion_figures(record, mouth) if record.has_motion else {}))
    names = sorted({name for clip in clips for name in clip})
    return {name: float(np.mean([clip[name] for clip in clips if name in clip])) for name in names}


def _motion_figures(record: TeacherRecord, mouth: Array) -> Metrics:
    made, real = record.samples[..., 7:].astype(np.float32) @ mouth, record.motion[:, 7:] @ mouth
    return {
        "r": correlation(made[0], real),
        "r mean": correlation(made.mean(0), real),
        "amplitude": float(made[0].std() / (real.std() + 1e-6)),
        "lag": float(abs(best_lag(made[0], real))),
    }
