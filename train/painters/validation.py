"""Validate a painter on the validation split: PSNR, and a plot of painted parts."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from kdtalker.renderers.mesh.eyes.unet import PartUNet, normalise_views
from train.harness.figures import Figure
from train.harness.run import to_device
from train.painters.batches import PainterBatch
from train.painters.loss import composite
from train.painters.pairs import Pairs

PAIR_STRIDE, CHUNKS = 3, 4  # every third pair is measured; chunks in which the pairs of a film are painted
PLOTTED_FILMS = 8  # rows of the plot


def painter_metrics(painter: PartUNet, films: list[Pairs]) -> dict[str, float]:
    """Compute PSNR in dB, mean over films, of the warped and of the painted crop; of both also inside the opening."""
    metrics: dict[str, list[float]] = {"warped": [], "painted": [], "inside warped": [], "inside": []}
    for pairs in films:
        errors = []
        chosen = np.arange(0, len(pairs.which), PAIR_STRIDE)
        for rows in np.array_split(chosen, min(CHUNKS, len(chosen))):
            batch, made = paint(painter, pairs, rows)
            inside = (batch.warped[:, 3:4] > 0).float()
            for pictures in (batch.warped[:, :3], made):
                square = 127.5**2 * (pictures - batch.real) ** 2
                errors.append((float(square.mean()), float((square * inside).sum() / (3 * inside.sum() + 1))))
        whole, within = np.array(errors).reshape(-1, 2, 2).mean(0).T
        for name, value in zip(metrics, (*whole, *within), strict=True):
            metrics[name].append(10 * math.log10(255**2 / max(float(value), 1e-3)))
    return {name: float(np.mean(values)) for name, values in metrics.items() if values}


@torch.inference_mode()
def paint(painter: PartUNet, pairs: Pairs, rows: NDArray[np.int64]) -> tuple[PainterBatch, torch.Tensor]:
    """Paint some pairs of a film; return the batch and the composited parts (N, 3, side, side)."""
    views = (pairs.warped[rows], pairs.photographed[pairs.which[rows]], pairs.real[rows])
    appears = torch.from_numpy(pairs.appears[rows]).reshape(-1, 1, 1, 1)
    warped, photographed, real = (normalise_views(torch.from_numpy(view)) for view in views)
    batch = PainterBatch(warped, photographed, real, appears, appears)
    batch = to_device(batch, next(painter.parameters()).device)
    return batch, composite(painter, batch)[0]


def plot_parts(painter: PartUNet, films: list[Pairs]) -> Figure:
    """Plot the pair of each film that shows the painting most: source, warped, painted, real."""
    from matplotlib.figure import Figure

    columns = ("photographed", "warped", "painted", "real")
    films = films[:PLOTTED_FILMS]
    figure = Figure(figsize=(2 * len(columns), 2 * len(films) + 0.4))
    for axes, pairs in zip(figure.subplots(len(films), len(columns), squeeze=False), films, strict=True):
        batch, made = paint(painter, pairs, np.array([_most_opened(pairs)]))
        pictures = (batch.photographed[0, :3], batch.warped[0, :3], made[0], batch.real[0])
        for axis, name, picture in zip(axes, columns, pictures, strict=True):
            axis.imshow((picture.permute(1, 2, 0).cpu().numpy().clip(-1, 1) + 1) / 2)
            axis.set_title(name, fontsize=8)
            axis.axis("off")
    figure.tight_layout()
    return figure


def _most_opened(pairs: Pairs) -> int:
    """Find the pair with the highest opacity of the painting plus area of the opening."""
    opened = pairs.warped[..., 3].mean((1, 2)) / 255
    return int(np.argmax(pairs.appears + opened))
