"""Figures of a student's motion beside a film's, keypoints alone."""

from __future__ import annotations

from functools import cache

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import KEYPOINTS
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.edits.lips import SHUT_THRESHOLD
from kdtalker.renderers.mesh.geometry import FaceModel
from train.evaluate.metrics import CLOSURE_TOLERANCE_FRAMES
from train.harness.curves import correlation
from train.harness.figures import Metrics
from train.keypoints.validation import LIPS
from train.motion.validation import HEAD
from train.personal.film import HeardClip, generate

SEEDS = 4  # of the noise
LOWER_IS_BETTER = ("M-LMD",)


@cache
def _face() -> FaceModel:
    return FaceModel.load()


def mouth_openings(expression: Array) -> Array:
    """Compute the gap (...) of the inner lips over the outer-eye distance from expressions (..., 63) of the head's own
    axes."""
    face = _face()
    opening: Array = face.closed[0] + expression @ face.lip_gap_jacobian()[0]
    return opening


def closures_met_share(made: Array, real: Array) -> float | None:
    """Compute the recall in % of real lip closures in generated openings (seeds, T), within two frames; None where
    there are none."""
    wanted = np.flatnonzero(np.diff(np.r_[False, real < SHUT_THRESHOLD].astype(int)) == 1)
    if not len(wanted):
        return None
    near = np.ones(2 * CLOSURE_TOLERANCE_FRAMES + 1)
    shut = np.stack([np.convolve(row < SHUT_THRESHOLD, near, "same") > 0 for row in made])
    return float(100 * shut[:, wanted].mean())


def measure_motion(network: StudentNetwork, clip: HeardClip, normalisation: Normalisation) -> Metrics:
    """Measure the motion that a student makes of a clip's sound from its first frame, mean of SEEDS: correlation of the
    mouth opening with the real one, its deviation over the real one's, closures met, M-LMD in % of the outer-eye
    distance, deviation of the head's angles over the real ones'."""
    made = normalisation.restore(generate(network, clip, SEEDS))
    real = normalisation.restore(clip.motion.numpy())
    ours, theirs = mouth_openings(made[..., 7:]), mouth_openings(real[:, 7:])
    lips = _face().spreads[list(LIPS)]
    errors = lips @ (made - real)[..., 7:].reshape(*made.shape[:2], KEYPOINTS, 3)
    figures = {
        "r": float(np.mean([correlation(row, theirs) for row in ours])),
        "amplitude": float(ours.std(1).mean() / (theirs.std() + 1e-6)),
        "M-LMD": float(100 * np.linalg.norm(errors[..., :2], axis=-1).mean()),
    }
    met = closures_met_share(ours, theirs)
    if met is not None:
        figures["closures met"] = met
    head = made[..., 1:4].std(1).mean(0) / (real[:, 1:4].std(0) + 1e-3)
    return figures | {name: float(value) for name, value in zip(HEAD, head, strict=True)}


def measure_clips_together(network: StudentNetwork, clips: list[HeardClip], normalisation: Normalisation) -> Metrics:
    """Average the figures of clips by their length."""
    figures = [measure_motion(network, clip, normalisation) for clip in clips]
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
