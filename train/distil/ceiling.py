"""Measure the teacher as students are measured: the ceiling of what they can learn, of features as they are and, from
another cache, of features that hear no further than a student."""

from __future__ import annotations

import numpy as np
import torch

from kdtalker.core.errors import InputError
from kdtalker.diffusion.normalisation import Normalisation
from train.distil.cache import TeacherRecord
from train.distil.figures import phone_figures
from train.distil.measure.motion import motion_figures
from train.distil.measure.validation import average
from train.distil.phones import known
from train.distil.probe import PhoneProbe
from train.harness.figures import Metrics


@torch.no_grad()
def measure_teacher(records: list[TeacherRecord], probe: PhoneProbe, normalisation: Normalisation) -> Metrics:
    """Measure the validation split, means over clips: phone figures of the probe; figures of the cached samples of
    motion against real motion. Raises InputError where the split is empty."""
    chosen = [record for record in records if record.split == "val"]
    if not chosen:
        raise InputError("No clip is of the split 'val'; name some in a table (--table).")
    clips = {}
    for record in chosen:
        logits = probe(torch.from_numpy(record.features.astype(np.float32))).numpy()
        figures = phone_figures(logits, record.labels) if known(record.labels).any() else {}
        if record.has_motion:
            samples = normalisation.restore(np.asarray(record.samples, np.float32))
            figures |= motion_figures(samples, normalisation.restore(record.motion))
        clips[record.name] = figures
    return average(clips)
