"""Polyphase form of nearest-neighbour upsampling + 3x3 convolution; numerically equivalent, with less work.

After n-fold nearest upsampling along an axis, the three taps w of a kernel cover two input pixels or one:
    first phase     w0 previous + (w1 + w2) own
    inner phases    (w0 + w1 + w2) own
    last phase      (w0 + w1) own + w2 next
Inner phases are equal. So the output is a few low-resolution convolutions, one kernel per phase, interleaved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def first_phase_kernel(weight: Tensor, axis: int) -> Tensor:
    """Sum a kernel (.., 3, ..) to that of the first phase (.., 2, ..), over the previous and the own pixel."""
    previous, middle, following = weight.unbind(axis)
    return torch.stack([previous, middle + following], axis)


def last_phase_kernel(weight: Tensor, axis: int) -> Tensor:
    """Sum a kernel (.., 3, ..) to that of the last phase (.., 2, ..), over the own and the next pixel."""
    previous, middle, following = weight.unbind(axis)
    return torch.stack([previous + middle, following], axis)


class Upsample2xConv(nn.Module):
    """Compute 2x nearest upsampling of height and width, then a 3x3 or 3x3x3 convolution with padding 1.

    The four phase kernels, each 2x2, run as one low-resolution convolution with four times as many outputs.
    """

    def __init__(self, plain: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        kernels = [down(across(plain.weight.detach(), -1), -2) for down in _END_KERNELS for across in _END_KERNELS]
        self.weight = nn.Parameter(torch.cat(kernels), requires_grad=False)
        self.bias = nn.Parameter(_bias_of(plain).repeat(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, (D,) H, W) to (B, outputs, (D,) 2H, 2W)."""
        convolution = F.conv2d if x.ndim == 4 else F.conv3d
        phases = convolution(x, self.weight, self.bias, padding=1).chunk(4, dim=1)
        height, width = x.shape[-2:]
        output = _empty_like(phases[0], 2 * height, 2 * width)
        for phase, (row, column) in zip(phases, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            output[..., row::2, column::2] = phase[..., row : row + height, column : column + width]
        return output


class Upsample4xConv(nn.Module):
    """Compute 4x nearest upsampling, then a 3x3 convolution with padding 1, as a compact map: of the four phases along
    each axis the inner two are equal and stored once."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = plain.weight.detach(), _bias_of(plain)
        middle = weight.sum(dim=-2, keepdim=True)
        ends = [down(weight, -2) for down in _END_KERNELS]
        self.corners = _build_conv([across(end, -1) for end in ends for across in _END_KERNELS], bias)
        self.beside = _build_conv([across(middle, -1) for across in _END_KERNELS], bias)
        self.above_below = _build_conv([end.sum(dim=-1, keepdim=True) for end in ends], bias)
        self.inside = _build_conv([middle.sum(dim=-1, keepdim=True)], bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the compact map (B, outputs, 3H, 3W)."""
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


class CompactMapConv(nn.Module):
    """Compute a 3x3 convolution with padding 1 over the full-size map that a compact map of Upsample4xConv stands for,
    one output per phase.

    A pixel with the compact phases a b c has the full phases a b b c; its kernels see c' a b, a b b, b b c, b c a'.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        weight = plain.weight.detach()

        def phase_kernels(kernel: Tensor, axis: int) -> list[Tensor]:
            return [kernel, first_phase_kernel(kernel, axis), last_phase_kernel(kernel, axis), kernel]

        rows = phase_kernels(weight, -2)
        self.kernels = nn.ParameterList(
            nn.Parameter(kernel, requires_grad=False) for row in rows for kernel in phase_kernels(row, -1)
        )
        self.bias = nn.Parameter(_bias_of(plain), requires_grad=False)

    def forward(self, compact: Tensor) -> list[tuple[int, int, Tensor]]:
        """Map the compact map (B, C, 3H, 3W) to (row, column, output (B, outputs, H, W)) of each phase, 0..3."""
        size = compact.shape[-2] // 3, compact.shape[-1] // 3
        padded = F.pad(compact, (1, 1, 1, 1))
        results = []
        for index, kernel in enumerate(self.kernels):
            row, column = divmod(index, 4)
            window = padded[..., _KERNEL_OFFSETS[row] :, _KERNEL_OFFSETS[column] :]
            found = F.conv2d(window, kernel, self.bias, stride=3)
            results.append((row, column, found[..., : size[0], : size[1]]))
        return results


_END_KERNELS = (first_phase_kernel, last_phase_kernel)  # of the outer phases, in order
_KERNEL_OFFSETS = (0, 1, 2, 2)  # of the four phase kernels' first tap in the padded compact map


def _bias_of(plain: nn.Conv2d | nn.Conv3d) -> Tensor:
    assert plain.bias is not None
    return plain.bias.detach()


def _build_conv(kernels: list[Tensor], bias: Tensor) -> nn.Conv2d:
    """Concatenate kernels to one convolution, with padding 1 along axes where they have two taps."""
    weight = torch.cat(kernels)
    rows, columns = weight.shape[-2:]
    convolution = nn.Conv2d(weight.shape[1], len(weight), (rows, columns), padding=(rows - 1, columns - 1))
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.repeat(len(kernels)), requires_grad=False)
    return convolution


def _empty_like(maps: Tensor, height: int, width: int) -> Tensor:
    """Allocate maps of another size in the memory format of the convolution's output."""
    order = torch.channels_last if maps.ndim == 4 else torch.contiguous_format
    shape = (*maps.shape[:-2], height, width)
    return torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=order)
