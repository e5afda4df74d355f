"""Convolutions over maps that were enlarged by repeating cells, worked out on the small map: exact, with less work.

In a map of which each cell was repeated n times along a row, a 3-tap kernel w sees the same cell twice or thrice:
    the first of n places   w0 before + (w1 + w2) own
    those in the middle     (w0 + w1 + w2) own
    the last place          (w0 + w1) own + w2 after
The middle ones are equal. So the large result is a few small ones, a kernel for each kind of place, interleaved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def first_taps(weight: Tensor, axis: int) -> Tensor:
    """The kernel (.., 3, ..) of the first place: (.., 2, ..), over the cell before and the own one."""
    before, middle, after = weight.unbind(axis)
    return torch.stack([before, middle + after], axis)


def last_taps(weight: Tensor, axis: int) -> Tensor:
    """The kernel of the last place: (.., 2, ..), over the own cell and the one after."""
    before, middle, after = weight.unbind(axis)
    return torch.stack([before + middle, after], axis)


class DoubledConv(nn.Module):
    """A 3x3 or 3x3x3 convolution, padding 1, over a map whose last two axes were doubled; takes the small map.

    The kernels of the four kinds of place, each 2x2, run as one convolution of four times as many outputs.
    """

    def __init__(self, plain: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        kernels = [down(across(plain.weight.detach(), -1), -2) for down in _ENDS for across in _ENDS]
        self.weight = nn.Parameter(torch.cat(kernels), requires_grad=False)
        self.bias = nn.Parameter(_bias_of(plain).repeat(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, (D,) H, W) to (B, outputs, (D,) 2H, 2W)."""
        convolution = F.conv2d if x.ndim == 4 else F.conv3d
        kinds = convolution(x, self.weight, self.bias, padding=1).chunk(4, dim=1)
        height, width = x.shape[-2:]
        large = _empty_like(kinds[0], 2 * height, 2 * width)
        for kind, (row, column) in zip(kinds, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            large[..., row::2, column::2] = kind[..., row : row + height, column : column + width]
        return large


class QuadrupledConv(nn.Module):
    """A 3x3 convolution, padding 1, over a map that was enlarged four times; takes the small map, gives the result
    without its repetitions: the three different places of each cell in a row, likewise in a column."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = plain.weight.detach(), _bias_of(plain)
        middle = weight.sum(dim=-2, keepdim=True)
        ends = [down(weight, -2) for down in _ENDS]
        self.corners = _convolution([across(end, -1) for end in ends for across in _ENDS], bias)
        self.beside = _convolution([across(middle, -1) for across in _ENDS], bias)
        self.above_below = _convolution([end.sum(dim=-1, keepdim=True) for end in ends], bias)
        self.inside = _convolution([middle.sum(dim=-1, keepdim=True)], bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, 3H, 3W)."""
        height, width = x.shape[-2:]
        inside: Tensor = self.inside(x)
        compact = _empty_like(inside, 3 * height, 3 * width)
        compact[..., 1::3, 1::3] = inside
        corners, beside, above_below = self.corners(x).chunk(4, 1), self.beside(x).chunk(2, 1), self.above_below(x)
        for corner, (row, column) in zip(corners, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            compact[..., 2 * row :: 3, 2 * column :: 3] = corner[..., row : row + height, column : column + width]
        for end in (0, 1):
            compact[..., 1::3, 2 * end :: 3] = beside[end][..., end : end + width]
            compact[..., 2 * end :: 3, 1::3] = above_below.chunk(2, 1)[end][..., end : end + height, :]
        return compact


class CompactConv(nn.Module):
    """A 3x3 convolution, padding 1, over the map that QuadrupledConv gives without its repetitions; gives its four by
    four kinds of place one by one.

    Of the places a b c of a cell the map at full size has a b b c: its four kernels see c' a b, a b b, b b c, b c a'.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        weight = plain.weight.detach()

        def kinds(kernel: Tensor, axis: int) -> list[Tensor]:
            return [kernel, first_taps(kernel, axis), last_taps(kernel, axis), kernel]

        rows = kinds(weight, -2)
        self.kernels = nn.ParameterList(
            nn.Parameter(kernel, requires_grad=False) for row in rows for kernel in kinds(row, -1)
        )
        self.bias = nn.Parameter(_bias_of(plain), requires_grad=False)

    def forward(self, compact: Tensor) -> list[tuple[int, int, Tensor]]:
        """(B, C, 3H, 3W) to (row, column, result (B, outputs, H, W)) for each kind of place, 0..3."""
        cells = compact.shape[-2] // 3, compact.shape[-1] // 3
        padded = F.pad(compact, (1, 1, 1, 1))
        results = []
        for index, kernel in enumerate(self.kernels):
            row, column = divmod(index, 4)
            seen = padded[..., _STARTS[row] :, _STARTS[column] :]
            found = F.conv2d(seen, kernel, self.bias, stride=3)
            results.append((row, column, found[..., : cells[0], : cells[1]]))
        return results


_ENDS = (first_taps, last_taps)
_STARTS = (0, 1, 2, 2)  # where the four kernels begin in a padded row of compact cells


def _bias_of(plain: nn.Conv2d | nn.Conv3d) -> Tensor:
    assert plain.bias is not None
    return plain.bias.detach()


def _convolution(kernels: list[Tensor], bias: Tensor) -> nn.Conv2d:
    """These kernels side by side as one convolution, padded by one cell where they are two cells long."""
    weight = torch.cat(kernels)
    rows, columns = weight.shape[-2:]
    convolution = nn.Conv2d(weight.shape[1], len(weight), (rows, columns), padding=(rows - 1, columns - 1))
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.repeat(len(kernels)), requires_grad=False)
    return convolution


def _empty_like(maps: Tensor, height: int, width: int) -> Tensor:
    """Unset maps of another size, laid out in memory as these are."""
    order = torch.channels_last if maps.ndim == 4 else torch.contiguous_format
    shape = (*maps.shape[:-2], height, width)
    return torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=order)
