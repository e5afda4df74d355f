"""Motion extractor M of LivePortrait (arXiv 2407.03168, section 3.1), a ConvNeXt V2 tiny (arXiv 2301.00808)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)  # blocks and channels of the four stages of ConvNeXt V2 tiny
BINS, BIN_DEG, FIRST_BIN_DEG = 66, 3.0, -97.5  # number of angle bins, their width, and the angle of the first
_EPSILON = 1e-6  # added to denominators by every norm of the network


@dataclass(frozen=True)
class RawMotion:
    """Hold the network's outputs for B images: canonical keypoints (B, 63), scale (B, 1), logits of 66 angle bins for
    pitch, yaw and roll (B, 66), translation t (B, 3), expression (B, 63)."""

    kp: Tensor
    scale: Tensor
    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor


def decode_angle(bins: Tensor) -> Tensor:
    """Decode bin logits (B, 66) to angles (B, 1) in degrees: the expected bin times 3, minus 97.5."""
    bin_indices = torch.arange(BINS, dtype=bins.dtype, device=bins.device)
    return (bins.softmax(dim=-1) * bin_indices).sum(dim=-1, keepdim=True) * BIN_DEG + FIRST_BIN_DEG


class ChannelsFirstNorm(nn.LayerNorm):
    """Normalise (B, C, H, W) over its channels (layer norm)."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = super().forward(rearrange(x, "b c h w -> b h w c"))
        return rearrange(normed, "b h w c -> b c h w")


class GlobalResponseNorm(nn.Module):
    """Normalise (B, H, W, C) by global response (GRN; arXiv 2301.00808, algorithm 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        normed = norm / (norm.mean(dim=-1, keepdim=True) + _EPSILON)
        return self.gamma * (x * normed) + self.beta + x


class ConvNeXtBlock(nn.Module):
    """Add a residual to (B, C, H, W): depthwise 7x7 convolution, then an inverted bottleneck with GRN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = GlobalResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(rearrange(self.dwconv(x), "b c h w -> b h w c"))
        h = self.pwconv2(self.grn(F.gelu(self.pwconv1(h))))
        residual: Tensor = rearrange(h, "b h w c -> b c h w")
        return x + residual


class ConvNeXt(nn.Module):
    """Extract raw motion from RGB 0..1 (B, 3, 256, 256): ConvNeXt V2 with one linear head per output."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, stride=4), ChannelsFirstNorm(WIDTHS[0], eps=_EPSILON))
        self.downsample_layers = nn.ModuleList([stem])
        for inputs, outputs in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
            halved = nn.Conv2d(inputs, outputs, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(ChannelsFirstNorm(inputs, eps=_EPSILON), halved))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for depth, width in zip(DEPTHS, WIDTHS, strict=True)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=_EPSILON)
        self.fc_kp, self.fc_exp = (nn.Linear(WIDTHS[-1], 3 * KEYPOINTS) for _ in range(2))
        self.fc_pitch, self.fc_yaw, self.fc_roll = (nn.Linear(WIDTHS[-1], BINS) for _ in range(3))
        self.fc_scale, self.fc_t = nn.Linear(WIDTHS[-1], 1), nn.Linear(WIDTHS[-1], 3)

    def forward(self, image: Tensor) -> RawMotion:
        x = image
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        x = self.norm(reduce(x, "b c h w -> b c", "mean"))
        names = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")
        return RawMotion(**{name: getattr(self, f"fc_{name}")(x) for name in names})


class MotionExtractor(nn.Module):
    """Extract raw motion; wraps ConvNeXt under the parameter prefix `detector` of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = ConvNeXt()

    def forward(self, image: Tensor) -> RawMotion:
        """Map RGB 0..1 (B, 3, 256, 256) to raw motion."""
        raw: RawMotion = self.detector(image)
        return raw
