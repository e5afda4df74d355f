"""The motion extractor M of LivePortrait (arXiv 2407.03168, section 3.1), a ConvNeXt V2 tiny (arXiv 2301.00808)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
BINS, BIN_DEG, FIRST_BIN_DEG = 66, 3.0, -97.5
_EPSILON = 1e-6


@dataclass(frozen=True)
class RawMotion:
    """What the network says of B pictures: keypoints (B, 63), scale (B, 1), pitch, yaw, roll as logits of 66 bins
    (B, 66), shift (B, 3), expression (B, 63)."""

    kp: Tensor
    scale: Tensor
    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor


def degrees(bins: Tensor) -> Tensor:
    """Logits of bins (B, 66) to angles (B, 1): the expected bin times 3, minus 97.5."""
    places = torch.arange(BINS, dtype=bins.dtype, device=bins.device)
    return (bins.softmax(dim=-1) * places).sum(dim=-1, keepdim=True) * BIN_DEG + FIRST_BIN_DEG


class ChannelsFirstNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = super().forward(x.movedim(1, -1))
        return normed.movedim(-1, 1)


class GlobalResponseNorm(nn.Module):
    """arXiv 2301.00808, algorithm 1, on (B, H, W, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        strength: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        normed = strength / (strength.mean(dim=-1, keepdim=True) + _EPSILON)
        return self.gamma * (x * normed) + self.beta + x


class Block(nn.Module):
    """A depthwise 7x7 convolution, then an inverted bottleneck with GRN, beside the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = GlobalResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        h = self.pwconv2(self.grn(F.gelu(self.pwconv1(h))))
        residual: Tensor = h.permute(0, 3, 1, 2)
        return x + residual


class ConvNeXt(nn.Module):
    """(B, 3, 256, 256) RGB 0..1 to the raw motion."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, stride=4), ChannelsFirstNorm(WIDTHS[0], eps=_EPSILON))
        self.downsample_layers = nn.ModuleList([stem])
        for inputs, outputs in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
            halved = nn.Conv2d(inputs, outputs, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(ChannelsFirstNorm(inputs, eps=_EPSILON), halved))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(DEPTHS, WIDTHS, strict=True)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=_EPSILON)
        self.fc_kp, self.fc_exp = (nn.Linear(WIDTHS[-1], 3 * KEYPOINTS) for _ in range(2))
        self.fc_pitch, self.fc_yaw, self.fc_roll = (nn.Linear(WIDTHS[-1], BINS) for _ in range(3))
        self.fc_scale, self.fc_t = nn.Linear(WIDTHS[-1], 1), nn.Linear(WIDTHS[-1], 3)

    def forward(self, image: Tensor) -> RawMotion:
        x = image
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        x = self.norm(x.mean(dim=(2, 3)))
        names = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")
        return RawMotion(**{name: getattr(self, f"fc_{name}")(x) for name in names})


class MotionExtractor(nn.Module):
    """The network under the name that the published file gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = ConvNeXt()

    def forward(self, image: Tensor) -> RawMotion:
        """(B, 3, 256, 256) RGB 0..1 to the raw motion."""
        raw: RawMotion = self.detector(image)
        return raw
