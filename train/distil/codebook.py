"""A codebook of lip states, so that methods for logits reach motion too."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array


def fit_codebook(states: Array, codes: int, rounds: int = 30, seed: int = 0) -> Array:
    """Cluster states (N, D) by k-means, seeded as k-means++: centres (V, D)."""
    rng = np.random.default_rng(seed)
    centres = [states[rng.integers(len(states))]]
    for _ in range(codes - 1):
        nearest = squared_distances(states, np.stack(centres)).min(1)
        total = float(nearest.sum())
        chosen = rng.choice(len(states), p=nearest / total) if total > 0 else rng.integers(len(states))
        centres.append(states[chosen])
    found = np.stack(centres)
    for _ in range(rounds):
        code = squared_distances(states, found).argmin(1)
        means = [states[code == number].mean(0) if (code == number).any() else found[number] for number in range(codes)]
        found = np.stack(means).astype(np.float32)
    return found


def squared_distances(states: Array, centres: Array) -> Array:
    """Compute squared distances (N, V)."""
    products = (states**2).sum(1)[:, None] - 2 * states @ centres.T + (centres**2).sum(1)
    return np.asarray(np.maximum(products, 0), np.float32)


def quantise(states: Array, centres: Array) -> Array:
    """Replace states (T, D) by their nearest centres: the floor of what codes can tell."""
    decoded: Array = centres[squared_distances(states, centres).argmin(1)]
    return decoded
