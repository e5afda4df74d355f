"""Published state dicts made ready to load: spectral norms folded into plain weights, batch norms into convolutions.

Both are exact in eval mode but for rounding: a spectral norm divides by a number that no longer changes, a batch norm
is a scale and a shift of each channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fold_spectral_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """weight = weight_orig / (u . W v), W being weight_orig as (outputs, rest) (arXiv 1802.05957, eq. 8)."""
    folded = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight_orig":
            u, v = state[f"{stem}.weight_u"], state[f"{stem}.weight_v"]
            folded[f"{stem}.weight"] = value / torch.dot(u, value.flatten(1) @ v)
        elif kind not in ("weight_u", "weight_v"):
            folded[name] = value
    return folded


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm named `norm` into the convolution `conv` beside it, in place; the norm stands still then."""
    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "norm", None)
        if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            module.conv, module.norm = fused, nn.Identity()
