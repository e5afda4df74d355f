"""Inference forms of warping module and generator: numerically equivalent to `nets`, faster.

Batch norms are folded. Convolutions over nearest-upsampled maps run in polyphase form at low resolution
(`upsample_conv.py`), and so do instance norms, whose statistics upsampling does not change. Convolutions with a common
input are fused into one. Weights and maps are channels-last.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtalker.renderers.liveportrait.fast.folding import fold_batch_norms
from kdtalker.renderers.liveportrait.fast.upsample_conv import CompactMapConv, Upsample2xConv, Upsample4xConv
from kdtalker.renderers.liveportrait.nets.generator import (
    HIDDEN,
    MIDDLE_BLOCKS,
    SLOPE,
    Spade,
    SpadeBlock,
    SpadeGenerator,
)
from kdtalker.renderers.liveportrait.nets.warping import ConvNorm3d, HourglassDecoder, WarpingModule

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class FastDecoder(nn.Module):
    """Decode as HourglassDecoder, its upsampling convolutions in polyphase form; batch norms must be folded before."""

    def __init__(self, plain: HourglassDecoder) -> None:
        super().__init__()
        blocks = [block for block in plain.up_blocks if isinstance(block, ConvNorm3d)]
        self.up_blocks = nn.ModuleList(Upsample2xConv(block.conv) for block in blocks)
        self.conv = plain.conv

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = torch.cat([F.relu_(block(x)), skip], dim=1)
        return F.relu_(self.conv(x))


def optimize_warping(plain: WarpingModule) -> WarpingModule:
    """Return an equivalent, faster network with weights of its own; `plain` is not changed."""
    fast = _copy_sharing_weights(plain)
    fold_batch_norms(fast)
    hourglass = fast.dense_motion_network.hourglass
    hourglass.add_module("decoder", FastDecoder(hourglass.decoder))
    return _copy_weights(fast, torch.preserve_format)


class Modulation(nn.Module):
    """Apply SPADE modulation: normed (1 + gamma) + beta; the bias of gamma's convolution holds the 1."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden: Tensor, normed: Tensor) -> Tensor:
        gain, shift = self.conv(hidden).chunk(2, dim=1)
        return torch.addcmul(shift, normed, gain)


class CompactModulation(nn.Module):
    """Apply SPADE modulation from the compact map (B, 128, 3H, 3W) of a quadrupled one to normed (B, C, 4H, 4W)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = CompactMapConv(conv)

    def forward(self, hidden: Tensor, normed: Tensor) -> Tensor:
        result = torch.empty_like(normed)
        for row, column, phase in self.conv(hidden):
            gain, shift = phase.chunk(2, dim=1)
            result[..., row::4, column::4] = torch.addcmul(shift, normed[..., row::4, column::4], gain)
        return result


class FastBlock(nn.Module):
    """Compute a SpadeBlock at the resolution of the features (B, 256, H, W)."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__()
        self.shared: nn.Module = _fuse_shared_convs(plain)
        self.modulations = nn.ModuleList(Modulation(_fuse_modulation(norm)) for norm in _norms(plain))
        self.conv_0, self.conv_1 = plain.conv_0, plain.conv_1
        self.conv_s = plain.conv_s if plain.is_wider else None

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Compute the block's output; x is the input before upsampling, which `upsample` does after the first norm."""
        hidden = torch.split(F.relu_(self.shared(features)), HIDDEN, dim=1)
        normed = self.upsample(F.group_norm(x, x.shape[1]))
        h = self.conv_0(F.leaky_relu_(self.modulations[0](hidden[0], normed), SLOPE))
        h = self.modulations[1](hidden[1], F.group_norm(h, h.shape[1]))
        residual: Tensor = self.conv_1(F.leaky_relu_(h, SLOPE))
        if self.conv_s is None:
            return x + residual
        shortcut: Tensor = self.conv_s(self.modulations[2](hidden[2], normed))
        return shortcut + residual

    def upsample(self, normed: Tensor) -> Tensor:
        """Return the normalised input at the output's resolution."""
        return normed


class FastBlock2x(FastBlock):
    """Compute a SpadeBlock at twice the resolution of the features."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__(plain)
        self.shared = Upsample2xConv(_fuse_shared_convs(plain))

    def upsample(self, normed: Tensor) -> Tensor:
        return F.interpolate(normed, scale_factor=2)


class FastBlock4x(FastBlock2x):
    """Compute a SpadeBlock at four times the resolution of the features, from an input at half of its own."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__(plain)
        self.shared = Upsample4xConv(_fuse_shared_convs(plain))
        self.modulations = nn.ModuleList(CompactModulation(_fuse_modulation(norm)) for norm in _norms(plain))


class FastGenerator(nn.Module):
    """Generate RGB 0..1 (B, 3, 512, 512) from warped features (B, 256, 64, 64), as SpadeGenerator."""

    def __init__(self, plain: SpadeGenerator) -> None:
        super().__init__()
        self.fc, self.conv_img = plain.fc, plain.conv_img
        middle = (plain.get_submodule(f"G_middle_{index}") for index in range(MIDDLE_BLOCKS))
        blocks = [FastBlock(block) for block in middle if isinstance(block, SpadeBlock)]
        self.blocks = nn.ModuleList([*blocks, FastBlock2x(plain.up_0), FastBlock4x(plain.up_1)])

    def forward(self, features: Tensor) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        x = self.fc(features)
        for block in self.blocks:
            x = block(x, features)
        image: Tensor = (
            self.conv_img(F.leaky_relu(x, SLOPE)).float().sigmoid()
        )  # float32, as dark pixels underflow to 0 in half precision
        return image


def optimize_generator(plain: SpadeGenerator) -> FastGenerator:
    """Return an equivalent, faster network with weights of its own; `plain` is not changed."""
    return _copy_weights(FastGenerator(_copy_sharing_weights(plain)), torch.channels_last)


def _copy_sharing_weights(network: NetworkT) -> NetworkT:
    """Copy the modules but share their parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _copy_weights(network: NetworkT, maps: torch.memory_format) -> NetworkT:
    """Copy the network's weights, so that a memory-mapped file can be closed; those of 2-D convolutions get the memory
    format `maps`."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            layout = maps if weight.ndim == 4 else torch.preserve_format
            own = nn.Parameter(weight.detach().clone(memory_format=layout), requires_grad=False)
            module.register_parameter(name, own)
    return network


def _norms(block: SpadeBlock) -> list[Spade]:
    return [block.norm_0, block.norm_1, *([block.norm_s] if block.is_wider else [])]


def _fuse_shared_convs(block: SpadeBlock) -> nn.Conv2d:
    """Fuse the first convolutions of all the block's SPADE norms into one."""
    return _concat_convs([_as_conv2d(norm.mlp_shared[0]) for norm in _norms(block)])


def _fuse_modulation(norm: Spade) -> nn.Conv2d:
    """Fuse gamma's and beta's convolutions into one, with the 1 of (1 + gamma) in its bias."""
    both = _concat_convs([norm.mlp_gamma, norm.mlp_beta])
    assert both.bias is not None
    both.bias[: len(both.bias) // 2] += 1
    return both


def _concat_convs(convolutions: Iterable[nn.Conv2d]) -> nn.Conv2d:
    """Concatenate 3x3 convolutions of one input along their output channels."""
    parts = list(convolutions)
    weight = torch.cat([part.weight.detach() for part in parts])
    bias = torch.cat([part.bias.detach() for part in parts if part.bias is not None])
    fused = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, device="meta")
    fused.weight, fused.bias = (nn.Parameter(value, requires_grad=False) for value in (weight, bias))
    return fused


def _as_conv2d(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module
