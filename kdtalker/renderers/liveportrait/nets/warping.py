"""Warping module W of LivePortrait (arXiv 2407.03168, section 3.1; dense motion: arXiv 2011.15126).

It warps the source's feature volume from the source keypoints to the driving keypoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS
from kdtalker.renderers.liveportrait.nets.appearance import VOLUME_CHANNELS, VOLUME_DEPTH, ConvNorm

COMPRESSED = 4  # channels of the feature volume inside the dense motion network
MOTIONS = KEYPOINTS + 1  # candidate motions per voxel: the identity, then one per keypoint
# Hourglass: channels of its first level, number of levels, and the largest number of channels.
HOURGLASS_WIDTH, HOURGLASS_BLOCKS, HOURGLASS_MAX_WIDTH = 32, 5, 1024
HEATMAP_VARIANCE = 0.01  # of the Gaussians around keypoints, in coordinates -1..1


class WarpedFeatures(NamedTuple):
    """Hold the warped features (B, 256, 64, 64), the occlusion map (B, 1, 64, 64) 0..1, and the deformation
    (B, 16, 64, 64, 3), a sampling grid (x, y, z in -1..1) into the source volume.

    The generator reads the features alone; occlusion and deformation are compared with LivePortrait's in golden tests.
    """

    features: Tensor
    occlusion: Tensor
    deformation: Tensor


class DenseMotionCache(NamedTuple):
    """Cache the inputs of dense motion that depend on the source alone: the compressed volume (1, 4, D, H, W), the same
    sampled by the identity motion (1, 1, 4, D, H, W), and the keypoint heatmaps (1, 21, D, H, W)."""

    compressed: Tensor
    identity: Tensor
    heatmaps: Tensor


class ConvNorm3d(nn.Module):
    """Apply a 3x3x3 convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class HourglassEncoder(nn.Module):
    """Encode (B, C, D, H, W) to feature maps of all levels, each half as high and wide as the one before."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths = [inputs, *(min(HOURGLASS_MAX_WIDTH, HOURGLASS_WIDTH * 2 ** (i + 1)) for i in range(HOURGLASS_BLOCKS))]
        self.down_blocks = nn.ModuleList(map(ConvNorm3d, widths[:-1], widths[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(F.avg_pool3d(block(levels[-1]), (1, 2, 2)))
        return levels


class HourglassDecoder(nn.Module):
    """Decode the encoder's levels with skip connections to (B, C + 32, D, H, W)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        blocks = []
        for level in reversed(range(HOURGLASS_BLOCKS)):
            outputs = min(HOURGLASS_MAX_WIDTH, HOURGLASS_WIDTH * 2**level)
            below = min(HOURGLASS_MAX_WIDTH, HOURGLASS_WIDTH * 2 ** (level + 1))
            blocks.append(ConvNorm3d(below if level == HOURGLASS_BLOCKS - 1 else 2 * below, outputs))
        self.up_blocks = nn.ModuleList(blocks)
        self.conv = nn.Conv3d(HOURGLASS_WIDTH + inputs, HOURGLASS_WIDTH + inputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(HOURGLASS_WIDTH + inputs)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = torch.cat([block(F.interpolate(x, scale_factor=(1, 2, 2))), skip], dim=1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """Map (B, C, D, H, W) to (B, C + 32, D, H, W): U-Net that scales height and width, not depth."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.encoder, self.decoder = HourglassEncoder(inputs), HourglassDecoder(inputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


class DenseMotion(nn.Module):
    """Combine one sparse motion per keypoint into a dense deformation by a softmax mask (arXiv 2011.15126)."""

    def __init__(self) -> None:
        super().__init__()
        inputs = MOTIONS * (1 + COMPRESSED)
        self.compress = nn.Conv3d(VOLUME_CHANNELS, COMPRESSED, 1)
        self.norm = nn.BatchNorm3d(COMPRESSED)
        self.hourglass = Hourglass(inputs)
        self.mask = nn.Conv3d(HOURGLASS_WIDTH + inputs, MOTIONS, 7, padding=3)
        self.occlusion = nn.Conv2d((HOURGLASS_WIDTH + inputs) * VOLUME_DEPTH, 1, 7, padding=3)

    def prepare(self, volume: Tensor, source: Tensor) -> DenseMotionCache:
        """Cache the part of dense motion that depends on the source: volume (1, 32, D, H, W), keypoints (1, 21, 3)."""
        compressed = F.relu(self.norm(self.compress(volume)))
        grid = coordinate_grid(compressed)
        identity = F.grid_sample(compressed, grid[None], align_corners=False)
        return DenseMotionCache(compressed, identity[:, None], gaussian_heatmaps(grid, source))

    def forward(self, prepared: DenseMotionCache, driving: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Map driving (B, 21, 3) and source keypoints (1, 21, 3) to deformation (B, D, H, W, 3) and occlusion
        (B, 1, H, W)."""
        batch, grid = len(driving), coordinate_grid(prepared.compressed)
        moved = grid - rearrange(driving - source, "b k xyz -> b k 1 1 1 xyz")
        motions = torch.cat([grid.expand(batch, 1, -1, -1, -1, -1), moved], dim=1)
        repeated = prepared.compressed.expand(batch * KEYPOINTS, -1, -1, -1, -1)
        sampled = F.grid_sample(repeated, rearrange(moved, "b k d h w xyz -> (b k) d h w xyz"), align_corners=False)
        identity = prepared.identity.expand(batch, -1, -1, -1, -1, -1)
        deformed = torch.cat([identity, rearrange(sampled, "(b k) c d h w -> b k c d h w", b=batch)], dim=1)
        heat = gaussian_heatmaps(grid, driving) - prepared.heatmaps
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], dim=1)
        inputs = torch.cat([rearrange(heat, "b m d h w -> b m 1 d h w"), deformed], dim=2)
        inputs = rearrange(inputs, "b m c d h w -> b (m c) d h w")
        encoded = self.hourglass(inputs)
        mask = self.mask(encoded).softmax(dim=1)
        deformation = (rearrange(mask, "b m d h w -> b m d h w 1") * motions).sum(dim=1)
        occlusion = torch.sigmoid(self.occlusion(rearrange(encoded, "b c d h w -> b (c d) h w")))
        return deformation, occlusion


def coordinate_grid(volume: Tensor) -> Tensor:
    """Build the identity sampling grid (D, H, W, 3) of a volume (.., D, H, W): x, y, z from -1 to 1."""
    axes = [torch.linspace(-1, 1, size, dtype=volume.dtype, device=volume.device) for size in volume.shape[-3:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def gaussian_heatmaps(grid: Tensor, keypoints: Tensor) -> Tensor:
    """Evaluate Gaussians around keypoints (B, 21, 3) on a grid (D, H, W, 3): (B, 21, D, H, W)."""
    squared = ((grid - rearrange(keypoints, "b k xyz -> b k 1 1 1 xyz")) ** 2).sum(dim=-1)
    return torch.exp(-0.5 * squared / HEATMAP_VARIANCE)


class WarpingModule(nn.Module):
    """Warp the feature volume to the driving keypoints and flatten it to the generator's input features."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion()
        self.third = ConvNorm(VOLUME_CHANNELS * VOLUME_DEPTH, 256, negative_slope=0.01)
        self.fourth = nn.Conv2d(256, 256, 1)

    def forward(
        self, volume: Tensor, driving: Tensor, source: Tensor, prepared: DenseMotionCache | None = None
    ) -> WarpedFeatures:
        """Warp volume (1, 32, 16, 64, 64) from source (1, 21, 3) to driving keypoints (B, 21, 3). prepared: the cached
        result of dense_motion_network.prepare(volume, source)."""
        if prepared is None:
            prepared = self.dense_motion_network.prepare(volume, source)
        deformation, occlusion = self.dense_motion_network(prepared, driving, source)
        moved = F.grid_sample(volume.expand(len(driving), -1, -1, -1, -1), deformation, align_corners=False)
        features = self.fourth(self.third(rearrange(moved, "b c d h w -> b (c d) h w")))
        return WarpedFeatures(features * occlusion, occlusion, deformation)
