"""The U-Net that refines the skin of closing eyelids, in torch; `EyePainter` runs its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.eyes.painter import rename_older
from kdtalker.weights.checkpoint import read_checkpoint

VIEW_CHANNELS = 6  # of one input view: RGB, two masks and the signed height over the part's line


class Residual(nn.Module):
    """Add two 3x3 convolutions with pre-activation to their input: x + conv(silu(conv(silu(x)))), (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class PartUNet(nn.Module):
    """Predict from the warped and the source view of a part what is blended over the warped one: a change of its
    colours, or source pixels instead, for teeth do not move in the skull (U-Net, Ronneberger et al. 2015).

    side_px: side of the views; widths: channels at 1/2, 1/4, ... of it."""

    def __init__(self, side_px: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.dimensions = {"side_px": side_px, "widths": list(widths)}
        steps = list(zip(widths, widths[1:], strict=False))
        self.stem = nn.Conv2d(4 * 2 * VIEW_CHANNELS + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(wide, narrow, 3, stride=2, padding=1) for wide, narrow in steps)
        self.encoder = nn.ModuleList([nn.Identity(), *(Residual(width) for width in widths[1:])])
        self.up = nn.ModuleList(nn.Conv2d(narrow, wide, 3, padding=1) for wide, narrow in steps)
        self.decoder = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * 5, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        along = torch.linspace(-1, 1, side_px // 2)
        self.register_buffer("place", torch.stack(torch.meshgrid(along, along, indexing="ij"))[None], persistent=False)
        self.place: Tensor

    def forward(self, warped: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict from views (B, 6, side_px, side_px) in -1..1 the change of colours (B, 3, ...) in the same unit, the
        share of source pixels (B, 1, ...) 0..1 and the alpha (B, 1, ...) 0..1 of the result over the warped view."""
        views = F.pixel_unshuffle(torch.cat([warped, source], 1), 2)
        x = self.stem(torch.cat([views, self.place.expand(len(views), -1, -1, -1)], 1))
        skips = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            skips.append(x)
            if level < len(self.down):
                x = self.down[level](F.silu(x))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](F.silu(x)), scale_factor=2, mode="nearest")
            x = self.decoder[level](x + skips[level])
        out = F.pixel_shuffle(self.head(F.silu(x)), 2)
        return 2 * out[:, :3], torch.sigmoid(4 * out[:, 4:] - 2), torch.sigmoid(4 * out[:, 3:4])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state, also one with the module names of older checkpoints."""
        return super().load_state_dict(rename_older(state_dict), strict, assign)

    @staticmethod
    def load(path: Path) -> PartUNet:
        """Load a checkpoint for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("side_px", "widths"))
        network = PartUNet(**header).eval().requires_grad_(False)
        network.load_state_dict(state)
        return network

    def layers(self, warped: Tensor, source: Tensor) -> Tensor:
        """Predict from uint8 views (B, side_px, side_px, 6) the layers (B, side_px, side_px, 5) to blend: change of RGB
        in levels, share of source pixels 0..1, alpha 0..1."""
        change, share, alpha = self(normalise_views(warped), normalise_views(source))
        return rearrange(torch.cat([127.5 * change, share, alpha], 1), "b c h w -> b h w c")


def normalise_views(views: Tensor) -> Tensor:
    """Convert uint8 views (B, side, side, C) to float32 (B, C, side, side) in -1..1."""
    return rearrange(views, "b h w c -> b c h w").float() / 127.5 - 1
