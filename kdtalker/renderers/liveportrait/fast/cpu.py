"""Inference forms of warping module and generator for a CPU in float32: the optimised networks with their large
convolutions in a transform domain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kdtalker.renderers.liveportrait.fast.modules import CompactModulation, FastBlock, FastGenerator, Modulation
from kdtalker.renderers.liveportrait.fast.transform_conv import (
    DFT_SIZE,
    Transform,
    TransformConv,
    as_tiles,
    dft,
    winograd,
)
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule

FEW_OUTPUTS = 128  # below so many outputs a 2-D convolution is faster directly: its transforms outweigh its products
LARGE_LEVELS = 3  # first levels of the hourglass, whose maps are 16 x 16 and more: small maps are faster directly


class TransformModulation(nn.Module):
    """Apply SPADE modulation, normed (1 + gamma) + beta, strip by strip while gamma and beta lie in the cache."""

    def __init__(self, weight: Tensor, bias: Tensor | None, transform: Transform) -> None:
        super().__init__()
        self.conv = TransformConv(weight, bias, transform)

    def forward(self, hidden: Tensor, normed: Tensor) -> Tensor:
        result = torch.empty_like(normed, memory_format=torch.channels_last)
        inputs, outputs = (
            as_tiles(rearrange(maps, "b c y x -> b 1 y x c"), self.conv.transform.outputs) for maps in (normed, result)
        )
        for number, rows, values in self.conv.strips(hidden):
            gain, shift = values.chunk(2, dim=-1)
            torch.addcmul(shift, inputs[number][:, :, :, rows], gain, out=outputs[number][:, :, :, rows])
        return result


class ShiftedSumConv(nn.Module):
    """Compute a 2-D convolution with few outputs: one matrix product gives a map for each of its taps, and the shifted
    maps are summed."""

    weight: Tensor
    bias: Tensor

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        assert plain.bias is not None
        self.taps = plain.weight.shape[-1]
        flipped = plain.weight.detach().flip(-2, -1)
        self.register_buffer("weight", rearrange(flipped, "o c y x -> (o y x) c").contiguous())
        self.register_buffer("bias", rearrange(plain.bias.detach(), "o -> o 1 1").clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, O, H, W)."""
        terms = self.weight @ x.flatten(2)
        return F.fold(terms, x.shape[-2:], kernel_size=self.taps, padding=self.taps // 2) + self.bias


def transform_warping(network: WarpingModule) -> None:
    """Replace the large convolutions of a warping module from `optimize_warping`, in place."""
    motion = network.dense_motion_network
    hourglass = motion.hourglass
    for block in [*hourglass.encoder.down_blocks[:LARGE_LEVELS], hourglass.decoder, network.third]:
        _transform(block, "conv")
    motion.add_module("mask", _with_transform(motion.mask, dft(DFT_SIZE, motion.mask.kernel_size[0])))
    motion.add_module("occlusion", ShiftedSumConv(motion.occlusion))


def transform_generator(network: FastGenerator) -> None:
    """Replace the large convolutions of a generator from `optimize_generator`, in place."""
    _transform(network, "fc")
    for block in network.blocks:
        assert isinstance(block, FastBlock)
        for name in ("shared", "conv_0", "conv_1"):
            _transform(block, name)
        for index, modulation in enumerate(block.modulations):
            block.modulations[index] = _transform_modulation(modulation)


def _transform(network: nn.Module, name: str) -> None:
    conv = network.get_submodule(name)
    if isinstance(conv, nn.Conv3d) or (isinstance(conv, nn.Conv2d) and conv.out_channels >= FEW_OUTPUTS):
        network.add_module(name, _with_transform(conv, winograd()))


def _with_transform(conv: nn.Conv2d | nn.Conv3d, transform: Transform) -> TransformConv:
    return TransformConv(conv.weight, conv.bias, transform)


def _transform_modulation(modulation: nn.Module) -> TransformModulation:
    if isinstance(modulation, CompactModulation):
        whole = modulation.conv.kernels[0]  # that of the first phase along both axes, which is the kernel itself
        return TransformModulation(whole, modulation.conv.bias, winograd(compact=True))
    assert isinstance(modulation, Modulation)
    return TransformModulation(modulation.conv.weight, modulation.conv.bias, winograd())
