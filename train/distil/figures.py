"""Figures of students: frame and viseme error, likelihood, calibration, likeness of features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from train.distil.phones import BILABIALS, is_border, known, phone_ids, viseme_of_phone
from train.harness.figures import Metrics

Labels = NDArray[np.integer]
BINS = 15


def phone_figures(logits: Array, labels: Labels) -> Metrics:
    """Compute the figures of logits (T, C) on labelled frames (T,): FER, its mean over phones and without frames at
    borders; NLL; ECE of equal width and of equal mass; viseme error; recall of p, b and m."""
    inside = ~is_border(labels)[known(labels)]
    logits, labels = logits[known(labels)], labels[known(labels)]
    posterior = softmax(logits)
    guess, visemes = posterior.argmax(1), viseme_of_phone()
    wrong = guess != labels
    bilabials = np.isin(labels, phone_ids(BILABIALS))
    return {
        "FER": float(wrong.mean()),
        "FER macro": float(np.mean([wrong[labels == phone].mean() for phone in np.unique(labels)])),
        "FER inside": float(wrong[inside].mean()) if inside.any() else 0.0,
        "NLL": float(-np.log(np.maximum(posterior[np.arange(len(labels)), labels], 1e-12)).mean()),
        "ECE": calibration_error(posterior, labels),
        "ECE mass": calibration_error(posterior, labels, equal_mass=True),
        "viseme error": float((visemes[guess] != visemes[labels]).mean()),
        "p b m recall": float((visemes[guess] == visemes[labels])[bilabials].mean()) if bilabials.any() else 0.0,
    }


def softmax(logits: Array) -> Array:
    """Compute probabilities (..., C)."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def calibration_error(posterior: Array, labels: Labels, *, equal_mass: bool = False, bins: int = BINS) -> float:
    """Compute the expected calibration error, sum |B| / n |accuracy - confidence| over bins (arXiv 1706.04599), of
    equal width or of equally many frames."""
    confidence, is_right = posterior.max(1).astype(np.float64), posterior.argmax(1) == labels
    if equal_mass:
        groups = np.array_split(np.argsort(confidence, kind="stable"), bins)
    else:
        number = np.minimum((confidence * bins).astype(int), bins - 1)
        groups = [np.flatnonzero(number == one) for one in range(bins)]
    gaps = [len(group) * abs(is_right[group].mean() - confidence[group].mean()) for group in groups if len(group)]
    return float(sum(gaps) / len(labels))


def linear_cka(one: Array, other: Array) -> float:
    """Compute the centred kernel alignment with linear kernels (arXiv 1905.00414) of rows (N, D) and (N, D'), 0..1."""
    first, second = (rows.astype(np.float64) - rows.mean(0, dtype=np.float64) for rows in (one, other))
    cross = np.linalg.norm(first.T @ second) ** 2
    size = float(np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second))
    return float(cross) / max(size, 1e-12)


def bootstrap_interval(differences: Array, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of paired differences (N,) by the bootstrap over its entries."""
    rng = np.random.default_rng(seed)
    means = differences[rng.integers(len(differences), size=(draws, len(differences)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def best_delay(student: Array, teacher: Array, longest: int = 4) -> int:
    """Find by how many frames, 0 and more, the student's outputs (T, D) are later than the teacher's (T, D)."""
    errors = [((student[longest:] - teacher[longest - delay : len(teacher) - delay]) ** 2).mean()
              for delay in range(longest + 1)]  # fmt: skip
    return int(np.argmin(errors))
