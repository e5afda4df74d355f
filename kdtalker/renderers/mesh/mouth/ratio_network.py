"""The U-Net that predicts a ratio image, in torch; `ShadingNetwork` runs its graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.eyes.parts import border_taper
from kdtalker.renderers.mesh.eyes.unet import Residual
from kdtalker.renderers.mesh.mouth.shading import SIDE_PX
from kdtalker.weights.checkpoint import read_checkpoint

INPUTS = 6  # channels: RGB, mask of the opening, displacement in x and y
DISPLACEMENT_UNIT_PX = 6.0  # of the crop
STILL_PX2 = 0.1  # mean square displacement at which half of the ratio is applied
MOST_LOG_RATIO = 0.4  # limit of the log ratio, approached softly


class RatioNetwork(nn.Module):
    """Predict the log of a ratio image from a warped crop and its displacement: luma at full resolution, chroma at
    half. widths: channels of the U-Net's levels."""

    def __init__(self, widths: Sequence[int] = (32, 48, 64)) -> None:
        super().__init__()
        self.dimensions = {"widths": list(widths)}
        steps = list(zip(widths, widths[1:], strict=False))
        self.stem = nn.Conv2d(4 * INPUTS + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(wide, narrow, 3, stride=2, padding=1) for wide, narrow in steps)
        self.encoder = nn.ModuleList(Residual(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(narrow, wide, 3, padding=1) for wide, narrow in steps)
        self.decoder = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 + 2, 3, padding=1)
        for weights in self.head.parameters():
            nn.init.zeros_(weights)
        self.register_buffer("taper", torch.from_numpy(border_taper(SIDE_PX)).float(), persistent=False)
        self.taper: Tensor
        along = torch.linspace(-1, 1, SIDE_PX // 2)
        self.register_buffer("place", torch.stack(torch.meshgrid(along, along, indexing="ij"))[None], persistent=False)
        self.place: Tensor

    def forward(self, warped: Tensor, mask: Tensor, displacement: Tensor) -> Tensor:
        """Map crops (B, 3, SIDE_PX, SIDE_PX) 0..1, masks (B, 1, ...) of the opening and displacements (B, 2, ...) px
        to log ratios (B, 3, ...), which fade out along the crop's border. Nothing changes where nothing has moved."""
        x = torch.cat([2 * warped - 1, mask, displacement / DISPLACEMENT_UNIT_PX], 1)
        x = self.stem(torch.cat([F.pixel_unshuffle(x, 2), self.place.expand(len(x), -1, -1, -1)], 1))
        skips = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            skips.append(x)
            if level < len(self.down):
                x = self.down[level](F.silu(x))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](F.silu(x)), scale_factor=2, mode="nearest")
            x = self.decoder[level](x + skips[level])
        out = self.head(F.silu(x))
        red, blue = F.interpolate(out[:, 4:], scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
        ratio = F.pixel_shuffle(out[:, :4], 2) + torch.stack([red, -(red + blue) / 2, blue], 1)
        moved = (displacement**2).mean((1, 2, 3), keepdim=True)
        return MOST_LOG_RATIO * torch.tanh(ratio / MOST_LOG_RATIO) * (moved / (moved + STILL_PX2)) * self.taper

    @staticmethod
    def load(path: Path) -> RatioNetwork:
        """Load a checkpoint for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("widths",))
        network = RatioNetwork(**header).eval().requires_grad_(False)
        network.load_state_dict(state)
        return network

    def log_ratio(self, view: Tensor, opening: Tensor, displacement: Tensor) -> Tensor:
        """Map one uint8 crop (SIDE_PX, SIDE_PX, 3), its mask (SIDE_PX, SIDE_PX) and displacement (2, SIDE_PX, SIDE_PX)
        to the log ratio image (SIDE_PX, SIDE_PX, 3)."""
        crop = rearrange(view, "h w c -> 1 c h w").float() / 255
        ratio: Tensor = rearrange(self(crop, opening[None, None], displacement[None])[0], "c h w -> h w c")
        return ratio
