"""Validate the mouth's inside on the validation split: PSNR, and a plot of mouths."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.harness.figures import Figure
from train.harness.run import to_device
from train.interior.batches import MouthBatch, MouthDataset
from train.interior.loss import draw, encode

PLOTTED_FILMS, FRAMES = 12, 6  # rows of the plot, and frames of each film that are drawn


@torch.no_grad()
def validate_mouths(model: MouthInterior, dataset: MouthDataset) -> tuple[dict[str, float], dict[str, Figure]]:
    """Draw frames of each film by the codes of its first open mouth; compute the PSNR in dB inside the mouth, mean over
    films, and plot them."""
    device = next(model.parameters()).device
    batches = [to_device(dataset.evenly(film, FRAMES), device) for film in dataset.usable]
    if not batches:
        return {}, {}
    drawn = [draw(model, batch, encode(model, batch, FRAMES))[1].composite() for batch in batches]
    errors = [
        float(((image - batch.real) ** 2 * batch.mask).sum() / (3 * batch.mask.sum()))
        for image, batch in zip(drawn, batches, strict=True)
    ]
    metrics = {"inside PSNR": float(np.mean([-10 * math.log10(max(error, 1e-6)) for error in errors]))}
    return metrics, {"mouths": plot_mouths(batches[:PLOTTED_FILMS], drawn[:PLOTTED_FILMS])}


def plot_mouths(batches: list[MouthBatch], drawn: list[Tensor]) -> Figure:
    """Plot frames of films, the inside of the mouth as drawn below the real one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * FRAMES, 2.4 * len(batches)))
    rows = figure.subplots(2 * len(batches), FRAMES, squeeze=False)
    for number, (batch, image) in enumerate(zip(batches, drawn, strict=True)):
        shown = batch.real + batch.mask * (image - batch.real)
        for axes, pictures in zip(rows[2 * number : 2 * number + 2], (batch.real, shown), strict=True):
            for axis, picture in zip(axes, pictures, strict=True):
                axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
                axis.axis("off")
    figure.tight_layout()
    return figure
