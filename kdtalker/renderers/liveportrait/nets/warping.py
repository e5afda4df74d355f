"""The warping module W of LivePortrait (arXiv 2407.03168, section 3.1; dense motion as in arXiv 2011.15126): a feature
volume moved from the source's keypoints to the driving ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS
from kdtalker.renderers.liveportrait.nets.appearance import VOLUME_CHANNELS, VOLUME_DEPTH, ConvNorm

COMPRESSED = 4
MOTIONS = KEYPOINTS + 1  # the first one stands still
HOURGLASS_WIDTH, HOURGLASS_BLOCKS, HOURGLASS_MOST = 32, 5, 1024
HEATMAP_VARIANCE = 0.01


class Warped(NamedTuple):
    """features (B, 256, 64, 64) for the generator, occlusion (B, 1, 64, 64) 0..1, deformation (B, 16, 64, 64, 3), the
    place in the source volume (x, y, z in -1..1) that each cell shows."""

    features: Tensor
    occlusion: Tensor
    deformation: Tensor


class Prepared(NamedTuple):
    """What dense motion needs of a source, the same in all of its frames: the compressed volume (1, 4, D, H, W), also
    as the motion that stands still samples it (1, 1, 4, D, H, W), and the heatmaps of its keypoints
    (1, 21, D, H, W)."""

    compressed: Tensor
    still: Tensor
    heat: Tensor


class ConvNorm3d(nn.Module):
    """A 3-D 3x3x3 convolution, its batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Encoder(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths = [inputs, *(min(HOURGLASS_MOST, HOURGLASS_WIDTH * 2 ** (i + 1)) for i in range(HOURGLASS_BLOCKS))]
        self.down_blocks = nn.ModuleList(map(ConvNorm3d, widths[:-1], widths[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(F.avg_pool3d(block(levels[-1]), (1, 2, 2)))
        return levels


class Decoder(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        blocks = []
        for level in reversed(range(HOURGLASS_BLOCKS)):
            outputs = min(HOURGLASS_MOST, HOURGLASS_WIDTH * 2**level)
            below = min(HOURGLASS_MOST, HOURGLASS_WIDTH * 2 ** (level + 1))
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
    """(B, C, D, H, W) to (B, C + 32, D, H, W)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(inputs), Decoder(inputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


class DenseMotion(nn.Module):
    """A sparse motion for each keypoint, and which of them holds where."""

    def __init__(self) -> None:
        super().__init__()
        inputs = MOTIONS * (1 + COMPRESSED)
        self.compress = nn.Conv3d(VOLUME_CHANNELS, COMPRESSED, 1)
        self.norm = nn.BatchNorm3d(COMPRESSED)
        self.hourglass = Hourglass(inputs)
        self.mask = nn.Conv3d(HOURGLASS_WIDTH + inputs, MOTIONS, 7, padding=3)
        self.occlusion = nn.Conv2d((HOURGLASS_WIDTH + inputs) * VOLUME_DEPTH, 1, 7, padding=3)

    def prepare(self, volume: Tensor, source: Tensor) -> Prepared:
        """All that depends on the source alone; its volume (1, 32, D, H, W), keypoints (1, 21, 3)."""
        compressed = F.relu(self.norm(self.compress(volume)))
        grid = coordinates(compressed)
        still = F.grid_sample(compressed, grid[None], align_corners=False)
        return Prepared(compressed, still[:, None], heatmaps(grid, source))

    def forward(self, prepared: Prepared, driving: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints driving (B, 21, 3), source (1, 21, 3) to deformation (B, D, H, W, 3) and occlusion."""
        batch, grid = len(driving), coordinates(prepared.compressed)
        moved = grid - (driving - source)[:, :, None, None, None]
        motions = torch.cat([grid.expand(batch, 1, -1, -1, -1, -1), moved], dim=1)
        repeated = prepared.compressed.expand(batch * KEYPOINTS, -1, -1, -1, -1)
        sampled = F.grid_sample(repeated, moved.flatten(0, 1), align_corners=False)
        still = prepared.still.expand(batch, -1, -1, -1, -1, -1)
        deformed = torch.cat([still, sampled.view(batch, KEYPOINTS, *sampled.shape[1:])], dim=1)
        heat = heatmaps(grid, driving) - prepared.heat
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], dim=1)
        inputs = torch.cat([heat[:, :, None], deformed], dim=2).flatten(1, 2)
        seen = self.hourglass(inputs)
        share = self.mask(seen).softmax(dim=1)
        deformation = (share[..., None] * motions).sum(dim=1)
        occlusion = torch.sigmoid(self.occlusion(seen.flatten(1, 2)))
        return deformation, occlusion


def coordinates(volume: Tensor) -> Tensor:
    """(.., D, H, W) to (D, H, W, 3): x, y, z of each cell, -1 to 1 from the first to the last."""
    axes = [torch.linspace(-1, 1, size, dtype=volume.dtype, device=volume.device) for size in volume.shape[-3:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def heatmaps(grid: Tensor, keypoints: Tensor) -> Tensor:
    """Grid (D, H, W, 3), keypoints (B, 21, 3) to Gaussians around them (B, 21, D, H, W)."""
    squared = ((grid - keypoints[:, :, None, None, None]) ** 2).sum(dim=-1)
    return torch.exp(-0.5 * squared / HEATMAP_VARIANCE)


class WarpingModule(nn.Module):
    """The feature volume as the driving keypoints want it, flattened to the generator's features."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion()
        self.third = ConvNorm(VOLUME_CHANNELS * VOLUME_DEPTH, 256, negative_slope=0.01)
        self.fourth = nn.Conv2d(256, 256, 1)

    def forward(self, volume: Tensor, driving: Tensor, source: Tensor, prepared: Prepared | None = None) -> Warped:
        """volume (1, 32, 16, 64, 64), keypoints driving (B, 21, 3), source (1, 21, 3); `prepared` is what
        dense_motion_network.prepare(volume, source) gave, where that has been done before."""
        if prepared is None:
            prepared = self.dense_motion_network.prepare(volume, source)
        deformation, occlusion = self.dense_motion_network(prepared, driving, source)
        moved = F.grid_sample(volume.expand(len(driving), -1, -1, -1, -1), deformation, align_corners=False)
        features = self.fourth(self.third(moved.flatten(1, 2)))
        return Warped(features * occlusion, occlusion, deformation)
