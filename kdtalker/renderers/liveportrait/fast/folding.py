"""Fold spectral norms into plain weights and batch norms into convolutions, for inference.

Both are exact in eval mode up to rounding: a spectral norm divides by a constant, a batch norm scales and shifts each
channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn


def fold_spectral_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold every spectral norm of a state dict: weight = weight_orig / (u . W v), W being weight_orig as (outputs,
    rest) (arXiv 1802.05957, eq. 8). Raises KeyError where u or v is missing."""
    folded = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight_orig":
            u, v = state[f"{stem}.weight_u"], state[f"{stem}.weight_v"]
            folded[f"{stem}.weight"] = value / torch.dot(u, rearrange(value, "outputs ... -> outputs (...)") @ v)
        elif kind not in ("weight_u", "weight_v"):
            folded[name] = value
    return folded


def fold_batch_norms(network: nn.Module) -> None:
    """Fold the batch norm `norm` of each module into its convolution `conv`, in place; nn.Identity replaces it."""
    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "norm", None)
        if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            module.conv, module.norm = fused, nn.Identity()
