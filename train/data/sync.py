"""How much later a mouth is than its sound: a ridge regression of mouth opening on audio features, asked at each lag.

The regression learns from all films at once, their lags corrected by what the round before found. It takes minutes of
film from several people to mean something: a handful of short takes would explain themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array

LARGEST_LAG_FRAMES = 9
ROUNDS, COMPONENTS, RIDGE = 4, 96, 300.0
NEIGHBOURS = (-4, -2, -1, 0, 1, 2, 4)  # frames whose features the regression sees
HALVES_FRAMES = 100  # takes that last 4 s or longer are asked for a drift
CORPUS_TAKES = 50  # takes of a speaker with more than this share one camera, and so one lag
# A lag that all films share cannot be seen by a regression that learns from them; estimates from mel bands alone, which
# look at each film by itself, come out this much later on the same films.
COMMON_LAG_FRAMES = 1
TRUSTED = 0.2  # takes with less correlation teach nothing

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Sync:
    """lag_frames > 0: the mouth is later than the sound; correlation at that lag, 0 where either never changes;
    drift_frames: by how much the lags of the take's two halves differ, 0 where they are too short to tell."""

    lag_frames: int
    correlation: float
    drift_frames: int = 0


def estimate_lags(openings: list[Array], features: list[Array], speakers: list[str]) -> list[Sync]:
    """One Sync for each take: mouth openings (T,), features (T, C) of its sound, and who speaks."""
    if not openings:
        return []
    curves = [(opening - opening.mean()) / (opening.std() + 1e-6) for opening in openings]
    inputs = [_with_neighbours(take) for take in _components(features)]
    curves, inputs = zip(*(_same_length(*pair) for pair in zip(curves, inputs, strict=True)), strict=True)  # type: ignore[assignment]
    found = [Sync(0, 1.0) for _ in curves]
    shared = _corpora(speakers)
    for _ in range(ROUNDS):
        weights = _regress(inputs, curves, found)
        by_lag = np.stack([_correlations(take @ weights, curve) for take, curve in zip(inputs, curves, strict=True)])
        best = by_lag.argmax(1)
        for members in shared:
            best[members] = by_lag[members].mean(0).argmax()
        found = [Sync(int(lag) - LARGEST_LAG_FRAMES, float(row[lag])) for lag, row in zip(best, by_lag, strict=True)]
    drifts = [_drift(take @ weights, curve) for take, curve in zip(inputs, curves, strict=True)]
    for member in (member for members in shared for member in members):
        drifts[member] = 0
    return [
        Sync(sync.lag_frames + COMMON_LAG_FRAMES, sync.correlation, drift)
        for sync, drift in zip(found, drifts, strict=True)
    ]


def _corpora(speakers: list[str]) -> list[NDArray[np.intp]]:
    """For each speaker of a corpus of many takes, which takes those are."""
    by_speaker = [np.flatnonzero(np.array(speakers) == speaker) for speaker in sorted(set(speakers))]
    return [members for members in by_speaker if len(members) > CORPUS_TAKES]


def _drift(predicted: Matrix, curve: Array) -> int:
    """Between the lags of the two halves."""
    middle = len(curve) // 2
    if len(curve) < HALVES_FRAMES:
        return 0
    halves = (slice(None, middle), slice(middle, None))
    first, second = (int(_correlations(predicted[half], curve[half]).argmax()) for half in halves)
    return abs(first - second)


def _components(features: list[Array]) -> list[Matrix]:
    """The features' leading principal components, scaled."""
    everything = np.concatenate([take.astype(np.float32) for take in features])
    mean, std = everything.mean(0), everything.std(0) + 1e-3
    scaled = (everything - mean) / std
    _, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    leading = vectors[:, -COMPONENTS:]
    return [((take.astype(np.float32) - mean) / std) @ leading for take in features]


def _with_neighbours(take: Matrix) -> Matrix:
    frames = np.arange(len(take))
    return np.concatenate([take[np.clip(frames + step, 0, len(take) - 1)] for step in NEIGHBOURS], axis=1)


def _same_length(curve: Array, take: Matrix) -> tuple[Array, Matrix]:
    length = min(len(curve), len(take))
    return curve[:length], take[:length]


def _regress(inputs: list[Matrix], curves: list[Array], found: list[Sync]) -> Matrix:
    """Weights that predict a mouth from its sound, by takes that are trusted, each moved by its lag."""
    width = inputs[0].shape[1]
    gram, target = RIDGE * np.eye(width), np.zeros(width)
    for take, curve, sync in zip(inputs, curves, found, strict=True):
        if sync.correlation < TRUSTED:
            continue
        heard, seen = _moved(take, curve, sync.lag_frames)
        gram += heard.T @ heard
        target += heard.T @ seen
    return np.asarray(np.linalg.solve(gram, target), np.float64)


def _moved(heard: Matrix, seen: Array, lag: int) -> tuple[Matrix, Array]:
    """What is heard with what is seen that many frames later."""
    late, early = max(0, lag), max(0, -lag)
    return heard[early : len(heard) - late], seen[late : len(seen) - early]


def _correlations(predicted: Matrix, curve: Array) -> Matrix:
    """At each lag from the smallest to the largest."""
    pairs = (_moved(predicted, curve, lag) for lag in range(-LARGEST_LAG_FRAMES, LARGEST_LAG_FRAMES + 1))
    return np.array([_correlation(heard, seen) for heard, seen in pairs], np.float64)


def _correlation(heard: Matrix, seen: Array) -> float:
    """Pearson's; 0 where one of them never changes."""
    predicted, curve = heard - heard.mean(), seen - seen.mean()
    size = float(np.linalg.norm(predicted) * np.linalg.norm(curve))
    return float(predicted @ curve) / size if size > 1e-9 else 0.0
