"""Validate the mouth's inside on the validation split: PSNR, and a plot of mouths."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.harness.figures import Figure
from train.harness.run import to_device
from train.harness.texture import gradient_magnitude
from train.interior.batches import MouthBatch, MouthDataset
from train.interior.loss import WINDOW_PX, encode, opening_interior

PLOTTED_FILMS, FRAMES = 12, 6  # rows of the plot, and frames of each film that are drawn


@torch.no_grad()
def validate_mouths(model: MouthInterior, dataset: MouthDataset) -> tuple[dict[str, float], dict[str, Figure]]:
    """Draw frames of each film by the codes of its first open mouth; compute the PSNR in dB inside the mouth, mean over
    films, and the gradient energy there over the real one's, median; and plot them."""
    device = next(model.parameters()).device
    batches = [to_device(dataset.evenly(film, FRAMES), device) for film in dataset.usable]
    if not batches:
        return {}, {}
    drawn = [draw_source(model, batch) for batch in batches]
    errors = [
        float(((image - batch.real) ** 2 * batch.mask).sum() / (3 * batch.mask.sum()))
        for image, batch in zip(drawn, batches, strict=True)
    ]
    energies = [gradient_energies((made, batch.real), batch) for made, batch in zip(drawn, batches, strict=True)]
    metrics = {
        "inside PSNR": float(np.mean([-10 * math.log10(max(error, 1e-6)) for error in errors])),
        "gradient energy": float(np.median([made / real for made, real in energies])),
    }
    return metrics, {"mouths": plot_mouths(batches[:PLOTTED_FILMS], drawn[:PLOTTED_FILMS])}


def draw_source(model: MouthInterior, batch: MouthBatch) -> Tensor:
    """Draw the frames of one film (B, 3, H, W) by the codes of the first, with the plate that is nearest to them."""
    code, style, place = encode(model, batch, len(batch.real))
    textures = model.plate_textures(code[:1], batch.colour[:1])[[int(model.nearest_plate(code[:1]))]]
    layers = model(textures.expand(len(code), -1, -1, -1, -1), batch.lips, batch.colour, style, place)
    image: Tensor = layers.composite()
    return image


def gradient_energies(images: tuple[Tensor, ...], batch: MouthBatch) -> list[float]:
    """Compute the mean squared gradient of grey values of each of several images (B, 3, H, W) of a batch, inside the
    opening."""
    inside = opening_interior(batch)
    return [float((gradient_magnitude(image, inside, WINDOW_PX) ** 2).mean()) for image in images]


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
