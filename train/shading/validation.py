"""Validate the shading network on the validation split: PSNR, and a plot of mouths."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from train.harness.figures import Figure
from train.harness.run import to_device
from train.shading.batches import ShadingBatch, batch_of
from train.shading.loss import shade, skin_weight
from train.shading.pairs import ShadingPairs

PAIR_STRIDE = 2  # every second pair is measured
PLOTTED = 8  # columns of the plot


@torch.no_grad()
def validate_shading(network: RatioNetwork, films: list[ShadingPairs]) -> tuple[dict[str, float], dict[str, Figure]]:
    """Compute PSNR in dB around the opening, mean over films, of the warped and of the shaded crops; plot some."""
    device = next(network.parameters()).device
    shown: list[tuple[ShadingBatch, Tensor]] = []
    errors = []
    for pairs in films:
        batch = to_device(batch_of(pairs, np.arange(0, len(pairs.real), PAIR_STRIDE)), device)
        shaded, _ = shade(network, batch)
        weight = skin_weight(batch)
        errors.append([float(((image - batch.real) ** 2 * weight).sum() / (3 * weight.sum()))
                       for image in (batch.warped, shaded)])  # fmt: skip
        shown.append((batch, shaded))
    if not shown:
        return {}, {}
    decibels = np.mean([[-10 * math.log10(max(error, 1e-6)) for error in row] for row in errors], axis=0)
    metrics = dict(zip(("warped PSNR", "shaded PSNR"), map(float, decibels), strict=True))
    return metrics, {"shaded": plot_shading(shown)}


def plot_shading(films: list[tuple[ShadingBatch, Tensor]]) -> Figure:
    """Plot for each film the pairs that moved most: warped, shaded, real."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 * PLOTTED, 3.6 * len(films)))
    axes = figure.subplots(3 * len(films), PLOTTED, squeeze=False)
    for number, (batch, shaded) in enumerate(films):
        most = (batch.displacement**2).mean((1, 2, 3)).argsort(descending=True)[:PLOTTED]
        for row, pictures in enumerate((batch.warped, shaded, batch.real)):
            for axis, picture in zip(axes[3 * number + row], pictures[most], strict=False):
                axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
        for axis in axes[3 * number : 3 * number + 3].flat:
            axis.axis("off")
    figure.tight_layout()
    return figure
