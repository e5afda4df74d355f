"""The network that paints a part of a face: what is between moving lips, the skin of closing lids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.arrays import Array
from kdtalker.weights.checkpoint import read_checkpoint

VIEW_CHANNELS = 6


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))), (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class Painter(nn.Module):
    """A U-Net (Ronneberger et al. 2015) from two views of a part, the warped one and the photographed one, to what is
    painted over the warped one: its colours changed, or those of the photograph, whose teeth stand still in the skull.
    side_px of the views; widths, channels at 1/2, 1/4, ... of it."""

    def __init__(self, side_px: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.dimensions = {"side_px": side_px, "widths": list(widths)}
        steps = list(zip(widths, widths[1:], strict=False))
        self.enter = nn.Conv2d(4 * 2 * VIEW_CHANNELS + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(wide, narrow, 3, stride=2, padding=1) for wide, narrow in steps)
        self.seen = nn.ModuleList([nn.Identity(), *(Residual(width) for width in widths[1:])])
        self.up = nn.ModuleList(nn.Conv2d(narrow, wide, 3, padding=1) for wide, narrow in steps)
        self.told = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 4 * 5, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        along = torch.linspace(-1, 1, side_px // 2)
        self.register_buffer("place", torch.stack(torch.meshgrid(along, along, indexing="ij"))[None], persistent=False)
        self.place: Tensor

    def forward(self, warped: Tensor, photographed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views (B, 6, side_px, side_px) in -1..1 to the change of colours (B, 3, ...) in their unit; how much of the
        photographed colours is taken instead and how much of it all covers the warped view, (B, 1, ...) 0..1."""
        views = F.pixel_unshuffle(torch.cat([warped, photographed], 1), 2)
        x = self.enter(torch.cat([views, self.place.expand(len(views), -1, -1, -1)], 1))
        kept = []
        for level, seen in enumerate(self.seen):
            x = seen(x)
            kept.append(x)
            if level < len(self.down):
                x = self.down[level](F.silu(x))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](F.silu(x)), scale_factor=2, mode="nearest")
            x = self.told[level](x + kept[level])
        out = F.pixel_shuffle(self.leave(F.silu(x)), 2)
        return 2 * out[:, :3], torch.sigmoid(4 * out[:, 4:] - 2), torch.sigmoid(4 * out[:, 3:4])

    @staticmethod
    def load(path: Path) -> Painter:
        """Raises InputError where the file is another model's."""
        header, state = read_checkpoint(path, ("side_px", "widths"))
        painter = Painter(**header).eval().requires_grad_(False)
        painter.load_state_dict(state)
        for weights in painter.parameters():
            if weights.ndim == 4:
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        return painter

    @torch.inference_mode()
    def paint(self, warped: NDArray[np.uint8], photographed: NDArray[np.uint8]) -> Array:
        """Views (B, side_px, side_px, 6) to (B, side_px, side_px, 5): the change of RGB in levels, how much of the
        photograph is taken instead, and how much of it all counts, 0..1."""
        change, taken, covers = self(*(as_input(torch.from_numpy(view)) for view in (warped, photographed)))
        return np.ascontiguousarray(torch.cat([127.5 * change, taken, covers], 1).permute(0, 2, 3, 1).numpy())


def as_input(views: Tensor) -> Tensor:
    """uint8 (B, side, side, C) to float32 (B, C, side, side) in -1..1."""
    return views.permute(0, 3, 1, 2).float() / 127.5 - 1
