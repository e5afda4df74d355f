"""Appearance feature extractor F of LivePortrait (arXiv 2407.03168, section 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

VOLUME_CHANNELS, VOLUME_DEPTH = 32, 16  # of the 3-D appearance feature volume


class ConvNorm(nn.Module):
    """Apply a 3x3 convolution, batch norm and leaky ReLU (slope 0: ReLU)."""

    def __init__(self, inputs: int, outputs: int, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.negative_slope)


class DownBlock(ConvNorm):
    """Apply ConvNorm, then halve height and width by average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class ResidualBlock3d(nn.Module):
    """Add a pre-activation residual to (B, C, D, H, W): batch norm, ReLU, 3x3x3 convolution, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)
        self.conv1, self.conv2 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        residual: Tensor = self.conv2(F.relu(self.norm2(h)))
        return x + residual


class AppearanceExtractor(nn.Module):
    """Extract the feature volume (B, 32, 16, 64, 64), as (B, C, D, H, W), from RGB 0..1 (B, 3, 256, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 64)
        self.down_blocks = nn.ModuleList([DownBlock(64, 128), DownBlock(128, 256)])
        self.second = nn.Conv2d(256, VOLUME_CHANNELS * VOLUME_DEPTH, 1)
        self.resblocks_3d = nn.Sequential()
        for index in range(6):
            self.resblocks_3d.add_module(f"3dr{index}", ResidualBlock3d(VOLUME_CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        x = rearrange(self.second(x), "b (c d) h w -> b c d h w", c=VOLUME_CHANNELS)
        volume: Tensor = self.resblocks_3d(x)
        return volume
