"""The U-Net that predicts a ratio image, in torch; `ShadingNetwork` runs its graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.renderers.mesh.eyes.parts import border_taper
from kdtalker.renderers.mesh.eyes.unet import Residual
from kdtalker.renderers.mesh.mouth.ratio_tensors import (
    CELL_CHANNELS,
    DISPLACEMENT_UNIT_PX,
    INPUTS,
    MOST_LOG_RATIO,
    STILL_PX2,
)
from kdtalker.renderers.mesh.mouth.shading import SIDE_PX
from kdtalker.weights.checkpoint import read_checkpoint


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
        x = torch.cat([F.pixel_unshuffle(x, 2), self.place.expand(len(x), -1, -1, -1)], 1)
        out = self._refine(self.stem(x))
        red, blue = F.interpolate(out[:, 4:], scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
        ratio = F.pixel_shuffle(out[:, :4], 2) + torch.stack([red, -(red + blue) / 2, blue], 1)
        moved = (displacement**2).mean((1, 2, 3), keepdim=True)
        return MOST_LOG_RATIO * torch.tanh(ratio / MOST_LOG_RATIO) * (moved / (moved + STILL_PX2)) * self.taper

    def predict_cells(self, cells: Tensor) -> Tensor:
        """Map what `ratio_tensors.pixel_unshuffle_inputs` returns, (1, CELL_CHANNELS, CELLS, CELLS), to what
        `decode_log_ratio` takes, (1, 6, CELLS, CELLS)."""
        weight = F.pad(self.stem.weight, (0, 0, 0, 0, 0, CELL_CHANNELS - self.stem.in_channels))
        return self._refine(F.conv2d(cells, weight, self.stem.bias, padding=1))

    def _refine(self, x: Tensor) -> Tensor:
        """Map the stem's output to luma (B, 4, ...) of 2 x 2 px and chroma (B, 2, ...)."""
        skips = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            skips.append(x)
            if level < len(self.down):
                x = self.down[level](F.silu(x))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](F.silu(x)), scale_factor=2, mode="nearest")
            x = self.decoder[level](x + skips[level])
        out: Tensor = self.head(F.silu(x))
        return out

    @staticmethod
    def load(path: Path) -> RatioNetwork:
        """Load a checkpoint for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("widths",))
        network = RatioNetwork(**header).eval().requires_grad_(False)
        network.load_state_dict(state)
        return network
