"""A painter in the middle of its training: figures on people held out, and a picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from kdtalker.renderers.mesh.unet import PartUNet, normalise_views
from train.harness.figures import Figure
from train.harness.run import on_device
from train.painters.batches import Batch
from train.painters.loss import painted
from train.painters.pairs import Pairs

EVERY, PARTS = 3, 4  # pairs of a film; parts in which they are painted
SHOWN = 8  # films


def figures_of(painter: PartUNet, films: list[Pairs]) -> dict[str, float]:
    """Peak signal to noise in dB, mean of films: of the crop warped only, painted, and of what lies in the opening
    alone."""
    figures: dict[str, list[float]] = {"warped": [], "painted": [], "inside warped": [], "inside": []}
    for pairs in films:
        errors = []
        chosen = np.arange(0, len(pairs.which), EVERY)
        for rows in np.array_split(chosen, min(PARTS, len(chosen))):
            batch, made = paint(painter, pairs, rows)
            inside = (batch.warped[:, 3:4] > 0).float()
            for pictures in (batch.warped[:, :3], made):
                square = 127.5**2 * (pictures - batch.real) ** 2
                errors.append((float(square.mean()), float((square * inside).sum() / (3 * inside.sum() + 1))))
        whole, within = np.array(errors).reshape(-1, 2, 2).mean(0).T
        for name, value in zip(figures, (*whole, *within), strict=True):
            figures[name].append(10 * math.log10(255**2 / max(float(value), 1e-3)))
    return {name: float(np.mean(values)) for name, values in figures.items() if values}


@torch.inference_mode()
def paint(painter: PartUNet, pairs: Pairs, rows: NDArray[np.int64]) -> tuple[Batch, torch.Tensor]:
    """Some pairs of a film, and what the painter makes of them (N, 3, side, side)."""
    views = (pairs.warped[rows], pairs.photographed[pairs.which[rows]], pairs.real[rows])
    appears = torch.from_numpy(pairs.appears[rows]).reshape(-1, 1, 1, 1)
    batch = Batch(*(normalise_views(torch.from_numpy(view)) for view in views), appears, appears)
    batch = on_device(batch, next(painter.parameters()).device)
    return batch, painted(painter, batch)[0]


def draw_parts(painter: PartUNet, films: list[Pairs]) -> Figure:
    """The pair of each film that shows most: photographed, warped, painted, real."""
    from matplotlib.figure import Figure

    columns = ("photographed", "warped", "painted", "real")
    films = films[:SHOWN]
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
    """The pair whose painting shows most; of those the one that is open widest."""
    opened = pairs.warped[..., 3].mean((1, 2)) / 255
    return int(np.argmax(pairs.appears + opened))
