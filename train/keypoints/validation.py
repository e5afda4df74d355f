"""Validate keypoints: variance explained on the validation split, and a plot of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.renderers.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, OUTER_LOWER_LIP, OUTER_UPPER_LIP
from train.harness.figures import Figure

LIPS = (61, 291, *OUTER_UPPER_LIP, *OUTER_LOWER_LIP, *INNER_UPPER_LIP, *INNER_LOWER_LIP)


def unexplained(films: list[Array], model: FaceModel) -> Array:
    """Compute each vertex's mean square residual and mean square offset (2, 468) over clips (T, 468, 3)."""
    sums = np.zeros((2, len(model.mean)))
    for offsets in films:
        errors = offsets - model.spreads @ (model.picks @ offsets)
        sums += [(values**2).sum((0, 2)) for values in (errors, offsets)]
    means: Array = (sums / max(1, sum(len(offsets) for offsets in films))).astype(np.float32)
    return means


def explained(left: Array, vertices: Sequence[int] | slice = slice(None)) -> float:
    """Compute the share of variance of some vertices that the keypoints explain."""
    chosen = left[:, vertices].astype(np.float64).sum(1)
    return float(1 - chosen[0] / chosen[1])


def plot_keypoints(model: FaceModel, left: Array) -> Figure:
    """Plot the mean face with its keypoints from the front and the side, vertices coloured by their residual."""
    from matplotlib.figure import Figure

    figure, error = Figure(figsize=(11, 6)), 100 * np.sqrt(left[0])
    keypoints = model.picks @ model.mean
    axes = figure.subplots(1, 2)
    for axis, across, title in zip(axes, (0, 2), ("from the front", "from the side"), strict=True):
        shown = axis.scatter(model.mean[:, across], -model.mean[:, 1], c=error, s=9)
        axis.plot(keypoints[:, across], -keypoints[:, 1], "ro", fillstyle="none", markersize=9)
        for number, point in enumerate(keypoints):
            axis.annotate(str(number), (point[across], -point[1]), fontsize=7)
        axis.set(title=title, aspect="equal")
        axis.axis("off")
    figure.colorbar(shown, ax=axes, label="what is left of a vertex's motion, people held out, % of outer-eye distance")
    return figure
