"""SPADE generator G of LivePortrait (arXiv 2407.03168, section 3.1; SPADE: arXiv 1903.07291).

Spectral norms are folded into plain weights before loading (`fast/folding.py`).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, HIDDEN, MIDDLE = 256, 128, 512  # channels of the input, of a SPADE's hidden layer, and of the middle blocks
MIDDLE_BLOCKS = 6  # residual blocks at the input's resolution
SLOPE = 0.2  # of every leaky ReLU


class Spade(nn.Module):
    """Apply spatially adaptive instance norm: scale and shift of each pixel are predicted from the warped features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(FEATURES, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(HIDDEN, width, 3, padding=1) for _ in range(2))

    def modulation(self, features: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Predict gamma and beta (B, width, size, size) from features (B, 256, 64, 64), upsampled nearest."""
        shared = self.mlp_shared(F.interpolate(features, size=(size, size)))
        return self.mlp_gamma(shared), self.mlp_beta(shared)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        gamma, beta = self.modulation(features, x.shape[-1])
        return F.instance_norm(x) * (1 + gamma) + beta


class SpadeBlock(nn.Module):
    """Add a residual of two SPADE-normalised convolutions; the shortcut is a 1x1 convolution where widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.norm_0, self.norm_1 = Spade(inputs), Spade(middle)
        self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.is_wider = inputs != outputs
        if self.is_wider:
            self.norm_s, self.conv_s = Spade(inputs), nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, features)) if self.is_wider else x
        h = self.conv_0(F.leaky_relu(self.norm_0(x, features), SLOPE))
        residual: Tensor = self.conv_1(F.leaky_relu(self.norm_1(h, features), SLOPE))
        return shortcut + residual


class SpadeGenerator(nn.Module):
    """Generate RGB 0..1 (B, 3, 512, 512) from warped features (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(FEATURES, MIDDLE, 3, padding=1)
        for index in range(MIDDLE_BLOCKS):
            self.add_module(f"G_middle_{index}", SpadeBlock(MIDDLE, MIDDLE))
        self.up_0, self.up_1 = SpadeBlock(MIDDLE, 256), SpadeBlock(256, 64)
        self.conv_img = nn.Sequential(nn.Conv2d(64, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for index in range(MIDDLE_BLOCKS):
            x = self.get_submodule(f"G_middle_{index}")(x, features)
        x = self.up_0(F.interpolate(x, scale_factor=2), features)
        x = self.up_1(F.interpolate(x, scale_factor=2), features)
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return image.sigmoid()
