"""Convolution in a transform domain, for CPUs: Winograd's minimal filtering or a short DFT, in float32.

Height and width are cut into overlapping tiles; a linear transform of tile and kernel turns the convolution into one
matrix product per coefficient. F(4x4, 3x3) takes 36 multiplications for 16 outputs instead of 144 (arXiv 1509.09308),
a DFT of 14x14 for 7x7 kernels 400 for 64 outputs instead of 3136. Depth, where there is one, is summed tap by tap.
The result equals the direct convolution up to rounding, which is about as large in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

STRIP_BYTES = 12 * 2**20  # upper bound of the coefficients that are computed at once, so that they stay in the cache
DFT_SIZE = 14  # side of the tiles for 7x7 kernels: 8 outputs
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Transform:
    """Hold a bilinear algorithm for square tiles, F coefficients of 1 (real) or 2 (complex) parts each.

    analysis (parts F, side side): tile to coefficients; kernel (parts F, taps taps): the same of a kernel; synthesis
    (outputs outputs, parts F): products to outputs. step: distance of tiles in the input. constant: the coefficient
    whose first part adds `gain` times itself to every output.
    """

    analysis: Matrix
    kernel: Matrix
    synthesis: Matrix
    side: int
    outputs: int
    step: int
    parts: int
    constant: int
    gain: float


@cache
def winograd(*, compact: bool = False) -> Transform:
    """Build F(4x4, 3x3) by Toom-Cook at 0, 1, -1, 1/2, -2 and infinity, whose rounding errors are small.

    compact: for the compact map of a quadrupled one (`upsample_conv.Upsample4xConv`): a tile a b b c of the large map
    with its neighbours is 5 values wide in the compact map, as the inner two are equal.
    """
    points, outputs, taps = np.array([0, 1, -1, 0.5, -2]), 4, 3
    others = [np.delete(points, index) for index in range(len(points))]
    scale = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    analysis, infinity = np.zeros((6, 6)), np.eye(6)[5]
    analysis[:5, :5] = [np.poly(rest)[::-1] for rest in others]
    analysis[5] = np.poly(points)[::-1]
    kernel = np.vstack([np.vander(points, taps, increasing=True) / np.array(scale)[:, None], infinity[-taps:]])
    synthesis = np.vstack([np.vander(points, outputs, increasing=True), infinity[-outputs:]]).T
    if compact:
        analysis = np.delete(analysis, 3, axis=1) + np.outer(analysis[:, 3], np.eye(5)[2])
    return Transform(
        _in_two_dimensions(analysis), _in_two_dimensions(kernel), _in_two_dimensions(synthesis),
        side=analysis.shape[1], outputs=outputs, step=3 if compact else 4, parts=1, constant=7, gain=1,
    )  # fmt: skip


def _in_two_dimensions(matrix: NDArray[Any]) -> Matrix:
    return np.asarray(np.kron(matrix, matrix), np.float64)


@cache
def dft(side: int, taps: int) -> Transform:
    """Build overlap-save correlation by the DFT of real side x side tiles (side even) with taps x taps kernels.

    Of each pair of conjugate coefficients one is kept.
    """
    half, outputs = side // 2, side - taps + 1
    kept = [(u, v) for v in range(half + 1) for u in range(side) if v not in (0, half) or u <= half]
    weights = np.array([1 if u in (0, half) and v in (0, half) else 2 for u, v in kept]) / side**2

    def waves(size: int) -> NDArray[np.complex128]:
        place = np.mgrid[:size, :size].reshape(2, -1)
        return np.asarray(np.exp(-2j * np.pi / side * (np.array(kept) @ place)))

    def parts(real: Matrix, imaginary: Matrix) -> Matrix:
        return np.stack([real, imaginary], axis=1).reshape(2 * len(kept), -1)

    tile, kernel, output = waves(side), waves(taps).conj(), waves(outputs) * weights[:, None]
    return Transform(
        parts(tile.real, tile.imag), parts(kernel.real, kernel.imag), parts(output.real, output.imag).T,
        side, outputs, step=outputs, parts=2, constant=0, gain=1 / side**2,
    )  # fmt: skip


class Strip(NamedTuple):
    """Hold rows of tiles of an output, `rows` of image `number`: (outputs, outputs, D, rows, columns, channels)."""

    number: int
    rows: slice
    values: Tensor


class TransformConv(nn.Module):
    """Compute a convolution with odd kernels, stride 1 and padding of half a kernel by a Transform.

    weight (O, C, (depth,) taps, taps). Inputs are (B, C, (D,) H, W), H and W multiples of the tiles' step; outputs are
    channels-last.
    """

    analysis: Tensor
    synthesis: Tensor
    spectra: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, transform: Transform) -> None:
        super().__init__()
        self.transform, self.is_flat = transform, weight.ndim == 4
        kernel = weight.detach().unsqueeze(2) if self.is_flat else weight.detach()
        self.channels, (self.depth, self.taps) = len(kernel), kernel.shape[2:4]
        spectra = torch.from_numpy(transform.kernel).float() @ rearrange(kernel, "o c z y x -> (y x) (c z o)")
        spectra = rearrange(
            spectra, "(f p) (c z o) -> p f c z o", p=transform.parts, z=self.depth, o=self.channels
        ).contiguous()
        if transform.parts == 2:  # (a + bi)(c + di): the product of [a b] and the rows [c d], [-d c]
            real, imaginary = spectra
            spectra = torch.stack([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)])
        spectra = spectra.flatten(3)
        self.register_buffer("spectra", spectra)
        self.register_buffer("analysis", torch.from_numpy(transform.analysis).float())
        self.register_buffer("synthesis", torch.from_numpy(transform.synthesis).float())
        self.register_buffer("bias", None if bias is None else bias.detach() / transform.gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, (D,) H, W) to (B, O, (D,) H', W')."""
        size = [extent // self.transform.step * self.transform.outputs for extent in x.shape[-2:]]
        depth = 1 if self.is_flat else x.shape[2]
        output = x.new_empty(len(x), depth, *size, self.channels)
        tiles = as_tiles(output, self.transform.outputs)
        for number, rows, values in self.strips(x):
            tiles[number][:, :, :, rows].copy_(values)
        output = rearrange(output, "b z y x o -> b o z y x")
        return output.squeeze(2) if self.is_flat else output

    def strips(self, x: Tensor) -> Iterator[Strip]:
        """Compute the output in strips of rows of tiles, as large as the cache allows."""
        side, step, parts = self.transform.side, self.transform.step, self.transform.parts
        x = rearrange(x.unsqueeze(2) if self.is_flat else x, "b c z y x -> b z y x c")
        beyond = (side - step) // 2
        depth, height, width = x.shape[1], x.shape[2] // step, x.shape[3] // step
        padded = F.pad(x, (0, 0, beyond, beyond, beyond, beyond)).contiguous()
        row_bytes = 4 * depth * width * max(len(self.analysis) * x.shape[-1], self.spectra[0, :, 0].numel())
        count = min(height, -(-height * row_bytes // STRIP_BYTES))
        for number in range(len(x)):
            tiles = padded[number].unfold(1, side, step).unfold(2, side, step)
            tiles = rearrange(tiles, "z row column c y x -> y x z row column c")
            for index in range(count):
                rows = slice(height * index // count, height * (index + 1) // count)
                found = self.analysis @ tiles[:, :, :, rows].reshape(side**2, -1)
                products = self._multiply(found.view(-1, parts, depth, (rows.stop - rows.start) * width, x.shape[-1]))
                values = (self.synthesis @ products).view(
                    self.transform.outputs, self.transform.outputs, depth, -1, width, self.channels
                )
                yield Strip(number, rows, values)

    def _multiply(self, found: Tensor) -> Tensor:
        """Multiply coefficients (F, parts, D, N, C) by the kernels' and sum over channels: (parts F, D N O)."""
        coefficients, parts, depth, count, _ = found.shape
        products = torch.bmm(found[:, 0].flatten(1, 2), self.spectra[0])
        if parts == 2:
            products.baddbmm_(found[:, 1].flatten(1, 2), self.spectra[1])
        if self.depth > 1:
            taps = products.view(coefficients, depth, count, self.depth, -1).unbind(3)
            products = taps[self.depth // 2].clone()
            for tap, term in enumerate(taps):
                ahead = tap - self.depth // 2
                if ahead:
                    low, high = max(0, -ahead), min(depth, depth - ahead)
                    products[:, low:high] += term[:, low + ahead : high + ahead]
            products = products.flatten(1, 2)
        if self.bias is not None:
            products[self.transform.constant, :, : self.channels] += self.bias
        return rearrange(products, "f n (p o) -> (f p) (n o)", p=parts)


def as_tiles(maps: Tensor, side: int) -> Tensor:
    """View maps (B, D, H, W, C) as tiles (B, side, side, D, rows, columns, C)."""
    return rearrange(maps, "b z (row y) (column x) c -> b y x z row column c", y=side, x=side)
