"""Figures of painters on the validation split, and plots of masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.painter.kinds import PaintedClip, PainterKind
from train.harness.figures import Figure, Metrics

LEAST_ERROR = 1e-8  # mean squared error below which PSNR rises no more


@torch.no_grad()
def take_figures(kind: PainterKind, network: nn.Module, records: list[Any], recipe: Any) -> dict[str, Metrics]:
    """Compute the figures of each film, by its number."""
    return {f"film {number}": clip_figures(clip) for number, clip in enumerate(kind.clips(network, records, recipe))}


def clip_figures(clip: PaintedClip) -> Metrics:
    """Compute the PSNR in dB of what is painted, inside the part and of the whole picture; and flicker: the mean
    absolute difference of neighbouring frames inside the part, over the real one's, where frames are neighbours."""
    squares, channels = (clip.painted - clip.real) ** 2, clip.real.shape[1]
    inside = float((squares * clip.inside).sum() / (channels * clip.inside.sum()).clamp(min=1e-6))
    figures = {"inside PSNR": decibels(inside), "whole PSNR": decibels(float(squares.mean()))}
    rows = torch.from_numpy(clip.follows).nonzero()[:, 0].to(clip.real.device)
    if len(rows):
        both = torch.minimum(clip.inside[rows], clip.inside[rows - 1])
        painted, real = ((both * (one[rows] - one[rows - 1]).abs()).sum() for one in (clip.painted, clip.real))
        figures["flicker"] = float(painted / real.clamp(min=1e-6))
    return figures


def decibels(error: float) -> float:
    """Convert the mean squared error of pictures in 0..1 to PSNR in dB."""
    return -10 * math.log10(max(error, LEAST_ERROR))


def plot_masks(painting: Tensor, wanted: Tensor, inside: Tensor, masks: list[Tensor]) -> Figure:
    """Plot, for each of some pictures (N, 3, H, W), the painting, the teacher's, the map (N, 1, H, W) of the part, and
    under spatial masks (N, M, h, w) of each level."""
    from matplotlib.figure import Figure

    shape = tuple(painting.shape[-2:])
    maps = [inside, *(F.interpolate(level, shape, mode="nearest") for level in masks)]
    columns = 2 + sum(one.shape[1] for one in maps)
    figure = Figure(figsize=(1.3 * columns, 1.3 * len(painting) + 0.2))
    low = float(painting.min() < 0)  # pictures in -1..1
    for row, axes in enumerate(figure.subplots(len(painting), columns, squeeze=False)):
        for axis, picture in zip(axes, (painting[row], wanted[row]), strict=False):
            axis.imshow(((picture + low) / (1 + low)).clamp(0, 1).permute(1, 2, 0).cpu().numpy())
        for axis, values in zip(axes[2:], torch.cat(maps, 1)[row].cpu().numpy(), strict=True):
            axis.imshow(values, vmin=0, vmax=max(float(values.max()), 1e-6), cmap="gray")
        for axis in axes:
            axis.axis("off")
    figure.tight_layout()
    return figure
