"""Compare the strength of texture between images, wherever it lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gradient_magnitude(image: Tensor, mask: Tensor, window_px: int) -> Tensor:
    """Compute the root mean square of the gradients of grey values under a mask (B, 1, H, W), in overlapping windows:
    (B, 1, h, w) of images (B, 3, H, W)."""
    grey = image.mean(1, keepdim=True)
    squares = F.pad(grey.diff(dim=3) ** 2, (0, 1)) + F.pad(grey.diff(dim=2) ** 2, (0, 0, 0, 1))
    return torch.sqrt(F.avg_pool2d(squares * mask, window_px, window_px // 2) + 1e-6)


def texture_loss(made: Tensor, real: Tensor, mask: Tensor, window_px: int) -> Tensor:
    """Compute the L1 loss () of the local gradient magnitude of images (B, 3, H, W) under a mask (B, 1, H, W) that may
    hold weights: it asks for as much texture as the real image has."""
    weight = F.avg_pool2d(mask, window_px, window_px // 2)
    there = (mask > 0).float()
    one, other = (gradient_magnitude(image, there, window_px) for image in (made, real))
    return (weight * (one - other).abs()).sum() / (weight.sum() + 1e-3)
