"""Figures of a student's motion beside a person's films, keypoints alone."""

from __future__ import annotations

import numpy as np

from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.normalisation import Normalisation
from train.distil.measure.motion import motion_figures
from train.harness.figures import Metrics
from train.personal.film import HeardClip, generate

SEEDS = 4  # of the noise
LOWER_IS_BETTER = ("M-LMD",)


def measure_clips_together(network: StudentNetwork, clips: list[HeardClip], normalisation: Normalisation) -> Metrics:
    """Average over clips, by their length, the figures of the motion that a student makes of their sound."""
    made = [normalisation.restore(generate(network, clip, SEEDS)) for clip in clips]
    real = [normalisation.restore(clip.motion.numpy()) for clip in clips]
    figures = [motion_figures(*pair) for pair in zip(made, real, strict=True)]
    sizes = [len(clip) for clip in clips]
    names = list(dict.fromkeys(name for one in figures for name in one))
    return {
        name: float(np.average(
            [one[name] for one in figures if name in one],
            weights=[size for one, size in zip(figures, sizes, strict=True) if name in one],
        ))
        for name in names
    }  # fmt: skip


def gain(name: str, figures: Metrics, before: Metrics) -> float:
    """Compute the gain of a figure over one before in %."""
    sign = -1 if name in LOWER_IS_BETTER else 1
    return 100 * sign * (figures[name] - before[name]) / max(abs(before[name]), 1e-6)
