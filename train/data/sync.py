"""Estimate the audio-visual lag of clips by ridge regression of the mouth opening on audio features.

Each round fits one regression on all clips, shifted by the lags of the round before, and takes for each clip the lag of
the highest correlation. It needs minutes of film from several people: on a few short clips it overfits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from train.harness.curves import correlation, shift_by_lag

LARGEST_LAG_FRAMES = 9  # lags from -9 to 9 frames are tried
ROUNDS, COMPONENTS, RIDGE_PENALTY = 4, 96, 300.0  # rounds of fitting; principal components kept of the features
NEIGHBOURS = (-4, -2, -1, 0, 1, 2, 4)  # context of the regression: offsets of the frames whose features it reads
MIN_DRIFT_FRAMES = 100  # drift is estimated for clips of 4 s or longer
CORPUS_TAKES = 50  # a speaker with more clips than this comes from a corpus with one camera, and so one lag
# A regression cannot see a lag that all clips share. Estimates from mel bands, made for each clip alone, come out this
# much later on the same clips.
COMMON_LAG_FRAMES = 1
MIN_TRAINING_CORRELATION = 0.2  # clips with less correlation are left out of the fit

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Sync:
    """Hold a clip's lag. lag_frames > 0: the mouth is later than the sound; correlation: at that lag, 0 where one curve
    is constant; drift_frames: difference between the lags of the clip's halves, 0 for short clips."""

    lag_frames: int
    correlation: float
    drift_frames: int = 0


def estimate_lags(openings: list[Array], features: list[Array], speakers: list[str]) -> list[Sync]:
    """Estimate the lag of each clip from its mouth opening (T,), audio features (T, C) and speaker."""
    if not openings:
        return []
    curves = [(opening - opening.mean()) / (opening.std() + 1e-6) for opening in openings]
    inputs = [_with_neighbours(clip) for clip in _components(features)]
    curves, inputs = zip(*(_same_length(*pair) for pair in zip(curves, inputs, strict=True)), strict=True)  # type: ignore[assignment]
    found = [Sync(0, 1.0) for _ in curves]
    shared = _corpora(speakers)
    for _ in range(ROUNDS):
        weights = _regress(inputs, curves, found)
        by_lag = np.stack([_correlations(clip @ weights, curve) for clip, curve in zip(inputs, curves, strict=True)])
        best = by_lag.argmax(1)
        for members in shared:
            best[members] = by_lag[members].mean(0).argmax()
        found = [Sync(int(lag) - LARGEST_LAG_FRAMES, float(row[lag])) for lag, row in zip(best, by_lag, strict=True)]
    drifts = [_drift(clip @ weights, curve) for clip, curve in zip(inputs, curves, strict=True)]
    for member in (member for members in shared for member in members):
        drifts[member] = 0
    return [
        Sync(sync.lag_frames + COMMON_LAG_FRAMES, sync.correlation, drift)
        for sync, drift in zip(found, drifts, strict=True)
    ]


def _corpora(speakers: list[str]) -> list[NDArray[np.intp]]:
    """Group the clips of each speaker that has more than CORPUS_TAKES."""
    by_speaker = [np.flatnonzero(np.array(speakers) == speaker) for speaker in sorted(set(speakers))]
    return [members for members in by_speaker if len(members) > CORPUS_TAKES]


def _drift(predicted: Matrix, curve: Array) -> int:
    """Compute the difference between the best lags of both halves in frames."""
    middle = len(curve) // 2
    if len(curve) < MIN_DRIFT_FRAMES:
        return 0
    halves = (slice(None, middle), slice(middle, None))
    first, second = (int(_correlations(predicted[half], curve[half]).argmax()) for half in halves)
    return abs(first - second)


def _components(features: list[Array]) -> list[Matrix]:
    """Project standardised features onto their leading principal components."""
    everything = np.concatenate([clip.astype(np.float32) for clip in features])
    mean, std = everything.mean(0), everything.std(0) + 1e-3
    scaled = (everything - mean) / std
    _, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    leading = vectors[:, -COMPONENTS:]
    return [((clip.astype(np.float32) - mean) / std) @ leading for clip in features]


def _with_neighbours(clip: Matrix) -> Matrix:
    frames = np.arange(len(clip))
    return np.concatenate([clip[np.clip(frames + step, 0, len(clip) - 1)] for step in NEIGHBOURS], axis=1)


def _same_length(curve: Array, clip: Matrix) -> tuple[Array, Matrix]:
    length = min(len(curve), len(clip))
    return curve[:length], clip[:length]


def _regress(inputs: list[Matrix], curves: list[Array], found: list[Sync]) -> Matrix:
    """Fit the ridge regression weights on clips of enough correlation, each shifted by its lag."""
    width = inputs[0].shape[1]
    gram, target = RIDGE_PENALTY * np.eye(width), np.zeros(width)
    for clip, curve, sync in zip(inputs, curves, found, strict=True):
        if sync.correlation < MIN_TRAINING_CORRELATION:
            continue
        seen, heard = shift_by_lag(curve, clip, sync.lag_frames)
        gram += heard.T @ heard
        target += heard.T @ seen
    return np.asarray(np.linalg.solve(gram, target), np.float64)


def _correlations(predicted: Matrix, curve: Array) -> Matrix:
    """Correlate a curve with its prediction at each lag from the smallest to the largest."""
    lags = range(-LARGEST_LAG_FRAMES, LARGEST_LAG_FRAMES + 1)
    return np.array([correlation(curve, predicted, lag) for lag in lags], np.float64)
