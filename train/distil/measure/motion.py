"""Figures of motion: vectors (T, 70) of several seeds against real ones or a teacher's samples, all relative to the
source and in the head's axes, as models have them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, MOTION_WIDTH, Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import ExpressionBasis
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.lips import SHUT_THRESHOLD, close_lips
from kdtalker.renderers.mesh.anatomy import build_expression_model
from kdtalker.renderers.mesh.geometry import FaceModel
from train.distil.distiller import UNLABELLED
from train.distil.phones import PHONES
from train.evaluate.closures import MouthOpenings, Phone
from train.evaluate.metrics import closure_recall, count_runs, mean_jerk
from train.harness.curves import best_lag, correlation
from train.harness.figures import Metrics
from train.keypoints.validation import LIPS

SEEDS = 8  # samples of each clip
HEAD = ("yaw", "pitch", "roll")
ENDS_S = 10  # of a long run, its first and last seconds that are compared
_LEAST = 1e-6

load_face = cache(FaceModel.load)


@cache
def load_basis() -> ExpressionBasis:
    """Load what the lips of the mesh space are closed by."""
    basis = build_expression_model(load_face()).basis
    assert basis is not None
    return basis


def mouth_openings(vectors: Array) -> Array:
    """Compute the gap of the inner lips in outer-eye distances (...) of motion vectors (..., 70), as
    `kdtalker.face.landmarks` measures it in pictures."""
    face = load_face()
    opening: Array = vectors[..., 7:] @ face.lip_gap_jacobian()[0] + face.closed[0]
    return opening


def draw_lips(vectors: Array) -> Array:
    """Compute the mouth openings (...) of motion vectors (..., 70) as they are drawn: lips that almost meet are closed
    (`kdtalker.edits.lips`)."""
    motion = from_head_frame(Motion.from_vector(vectors.reshape(-1, MOTION_WIDTH), MESH_SPACE))
    basis, free = load_basis(), np.ones(len(motion), np.float32)
    closed = to_head_frame(close_lips(motion, basis, 0 * free, free, 0.0))
    return mouth_openings(closed.vector()).reshape(vectors.shape[:-1])


def motion_figures(made: Array, real: Array) -> Metrics:
    """Compute the figures of motion (S, T, 70) of S seeds against real motion (T, 70).

    Those of `mouth_figures` and `closure_figures`; M-LMD: mean distance of lip landmarks in % of the outer-eye
    distance; mouth jerk, head jerk: mean third difference over the real one's; yaw, pitch, roll: standard deviation
    over the real one's."""
    mouths, mouth = mouth_openings(made), mouth_openings(real)
    spreads = made[..., 1:4].std(1).mean(0) / (real[:, 1:4].std(0) + _LEAST)
    jerks = {
        "mouth jerk": np.mean([mean_jerk(row) for row in mouths]) / (mean_jerk(mouth) + _LEAST),
        "head jerk": np.mean([mean_jerk(one[:, 1:4]) for one in made]) / (mean_jerk(real[:, 1:4]) + _LEAST),
    }
    figures = mouth_figures(mouths, mouth, float(mouth.std())) | closure_figures(draw_lips(made), mouth)
    figures |= {"M-LMD": lip_distance(made, real)} | jerks | dict(zip(HEAD, spreads, strict=True))
    return {name: float(value) for name, value in figures.items()}


def teacher_figures(made: Array, samples: Array) -> Metrics:
    """Compute figures of the mouth of motion (S, T, 70) against a teacher's samples (K, T, 70), names beginning
    "teacher": curves against their mean, the amplitude against that of one."""
    theirs = mouth_openings(samples)
    figures = mouth_figures(mouth_openings(made), theirs.mean(0), float(theirs.std(1).mean()))
    figures |= closure_figures(draw_lips(made), draw_lips(samples.mean(0)))
    return {f"teacher {name}": value for name, value in figures.items()}


def mouth_figures(mouths: Array, mouth: Array, deviation: float) -> Metrics:
    """Compute the figures of mouth openings (S, T) of S seeds against another mouth (T,) with a standard deviation.

    r: correlation at lag 0, mean over seeds; r mean: that of the mean of all seeds; lag: size of its best lag in
    frames; r at lag: r of the seeds at that lag; amplitude: standard deviation over the other's."""
    lag = best_lag(mouths.mean(0), mouth)
    return {
        "r": float(np.mean([correlation(row, mouth) for row in mouths])),
        "r mean": correlation(mouths.mean(0), mouth),
        "r at lag": float(np.mean([correlation(row, mouth, lag) for row in mouths])),
        "lag": float(abs(lag)),
        "amplitude": float(mouths.std(1).mean() / (deviation + _LEAST)),
    }


def closure_figures(drawn: Array, mouth: Array) -> Metrics:
    """Compare lip closures of mouths as drawn (S, T) with those of another mouth (T,), where it has some. closures met:
    in %, mean over seeds, as of tracked films (`train.evaluate`); closures made: their number over the other's."""
    recalls = [recall for row in drawn if (recall := closure_recall(row, mouth)) is not None]
    if not recalls:
        return {}
    counts = [count_runs(row < SHUT_THRESHOLD, 1) for row in (*drawn, mouth)]
    return {"closures met": float(np.mean(recalls)), "closures made": float(np.mean(counts[:-1]) / counts[-1])}


def phone_closures(drawn: Array, labels: NDArray[np.integer]) -> Metrics:
    """Compute at which share in % of p, b, m and of vowels, by labels (T,), mouths as drawn (S, T) close
    (`train.evaluate.closures`), and the difference; nothing where there are none."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    spans = zip((0, *edges), (*edges, len(labels)), strict=True)
    phones = [Phone(PHONES[labels[start]], start / FRAME_RATE_HZ, end / FRAME_RATE_HZ)
              for start, end in spans if labels[start] != UNLABELLED]  # fmt: skip
    openings = MouthOpenings.concatenate([MouthOpenings.of(row, phones) for row in drawn])
    if not len(openings.closing) or not len(openings.vowels):
        return {}
    shares = [float(100 * (one < SHUT_THRESHOLD).mean()) for one in (openings.closing, openings.vowels)]
    return {"p b m closed": shares[0], "vowels closed": shares[1], "p b m - vowels": shares[0] - shares[1]}


def lip_distance(made: Array, real: Array) -> float:
    """Compute the mean distance of lip landmarks in frontal faces in % of the outer-eye distance (M-LMD), of motion
    (S, T, 70) and (T, 70)."""
    spreads = load_face().spreads[list(LIPS)]
    offsets = (made - real)[..., 7:].reshape(*made.shape[:-1], KEYPOINTS, 3)[..., :2]
    return float(100 * np.linalg.norm(spreads @ offsets, axis=-1).mean())


def endurance_figures(made: Array) -> Metrics:
    """Compute figures of long runs (S, T, 70) whose first and last ten seconds have the same sound: long amplitude, the
    mouth's standard deviation in the last over that in the first; long drift: distance of the mean poses in degrees."""
    frames = ENDS_S * FRAME_RATE_HZ
    first, last = made[:, :frames], made[:, -frames:]
    spreads = [mouth_openings(one).std(1).mean() for one in (last, first)]
    drift = np.abs(last[..., 1:4].mean(1) - first[..., 1:4].mean(1)).mean()
    return {"long amplitude": float(spreads[0] / (spreads[1] + _LEAST)), "long drift": float(drift)}
