"""The painting networks as they run: the same numbers as the published layout's modules give, in less time.

Batch norms are folded; convolutions over enlarged maps run on the small ones (`phases.py`), and so do instance norms,
to which repeated cells make no difference; what two norms of a block share is worked out once; channels come last in
memory, as convolutions like it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtalker.renderers.liveportrait.fast.folding import fold_batch_norms
from kdtalker.renderers.liveportrait.fast.upsample_conv import CompactConv, DoubledConv, QuadrupledConv
from kdtalker.renderers.liveportrait.nets.generator import (
    HIDDEN,
    MIDDLE_BLOCKS,
    SLOPE,
    Spade,
    SpadeBlock,
    SpadeGenerator,
)
from kdtalker.renderers.liveportrait.nets.warping import ConvNorm3d, Decoder, WarpingModule

Network = TypeVar("Network", bound=nn.Module)


class FastDecoder(nn.Module):
    """The hourglass's decoder with its convolutions on the small maps; batch norms must have been folded."""

    def __init__(self, plain: Decoder) -> None:
        super().__init__()
        blocks = [block for block in plain.up_blocks if isinstance(block, ConvNorm3d)]
        self.up_blocks = nn.ModuleList(DoubledConv(block.conv) for block in blocks)
        self.conv = plain.conv

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = torch.cat([F.relu_(block(x)), skip], dim=1)
        return F.relu_(self.conv(x))


def faster_warping(plain: WarpingModule) -> WarpingModule:
    """The same network on weights of its own; `plain` stays as it is."""
    fast = _around_the_same_weights(plain)
    fold_batch_norms(fast)
    hourglass = fast.dense_motion_network.hourglass
    hourglass.add_module("decoder", FastDecoder(hourglass.decoder))
    return _on_its_own(fast, torch.preserve_format)


class FastBlock(nn.Module):
    """A SpadeBlock at the features' own size."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__()
        self.shared: nn.Module = _shared(plain)
        self.modulations = nn.ModuleList(map(_modulation, _norms(plain)))
        self.conv_0, self.conv_1 = plain.conv_0, plain.conv_1
        self.conv_s = plain.conv_s if plain.is_wider else None

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """x is not yet enlarged, where the block's output is larger than the features."""
        hidden = torch.split(F.relu_(self.shared(features)), HIDDEN, dim=1)
        normed = self.enlarge(F.group_norm(x, x.shape[1]))
        h = self.conv_0(F.leaky_relu_(self.modulate(0, hidden[0], normed), SLOPE))
        h = self.modulate(1, hidden[1], F.group_norm(h, h.shape[1]))
        residual: Tensor = self.conv_1(F.leaky_relu_(h, SLOPE))
        if self.conv_s is None:
            return x + residual
        shortcut: Tensor = self.conv_s(self.modulate(2, hidden[2], normed))
        return shortcut + residual

    def enlarge(self, normed: Tensor) -> Tensor:
        return normed

    def modulate(self, number: int, hidden: Tensor, normed: Tensor) -> Tensor:
        """normed (1 + gamma) + beta; the convolution that gives gamma has the 1 in its bias."""
        gain, shift = self.modulations[number](hidden).chunk(2, dim=1)
        return torch.addcmul(shift, normed, gain)


class FastDoubledBlock(FastBlock):
    """A SpadeBlock twice as high and wide as the features."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__(plain)
        self.shared = DoubledConv(_shared(plain))

    def enlarge(self, normed: Tensor) -> Tensor:
        return F.interpolate(normed, scale_factor=2)


class FastQuadrupledBlock(FastDoubledBlock):
    """A SpadeBlock four times as high and wide as the features, whose input is half as high and wide."""

    def __init__(self, plain: SpadeBlock) -> None:
        super().__init__(plain)
        self.shared = QuadrupledConv(_shared(plain))
        self.modulations = nn.ModuleList(CompactConv(_modulation(norm)) for norm in _norms(plain))

    def modulate(self, number: int, hidden: Tensor, normed: Tensor) -> Tensor:
        result = torch.empty_like(normed)
        for row, column, found in self.modulations[number](hidden):
            gain, shift = found.chunk(2, dim=1)
            result[..., row::4, column::4] = torch.addcmul(shift, normed[..., row::4, column::4], gain)
        return result


class FastGenerator(nn.Module):
    """A SpadeGenerator: (B, 256, 64, 64) warped features to RGB 0..1 (B, 3, 512, 512)."""

    def __init__(self, plain: SpadeGenerator) -> None:
        super().__init__()
        self.fc, self.conv_img = plain.fc, plain.conv_img
        middle = (plain.get_submodule(f"G_middle_{index}") for index in range(MIDDLE_BLOCKS))
        blocks = [FastBlock(block) for block in middle if isinstance(block, SpadeBlock)]
        self.blocks = nn.ModuleList([*blocks, FastDoubledBlock(plain.up_0), FastQuadrupledBlock(plain.up_1)])

    def forward(self, features: Tensor) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        x = self.fc(features)
        for block in self.blocks:
            x = block(x, features)
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE)).float().sigmoid()  # in half precision dark would be 0
        return image


def faster_generator(plain: SpadeGenerator) -> FastGenerator:
    """The same network on weights of its own; `plain` stays as it is."""
    return _on_its_own(FastGenerator(_around_the_same_weights(plain)), torch.channels_last)


def _around_the_same_weights(network: Network) -> Network:
    """A copy of the modules around the same tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _on_its_own(network: Network, maps: torch.memory_format) -> Network:
    """The network with copies of its weights, those of 2-D convolutions laid out as `maps`: a file that they were
    mapped from can go."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            layout = maps if weight.ndim == 4 else torch.preserve_format
            own = nn.Parameter(weight.detach().clone(memory_format=layout), requires_grad=False)
            module.register_parameter(name, own)
    return network


def _norms(block: SpadeBlock) -> list[Spade]:
    return [block.norm_0, block.norm_1, *([block.norm_s] if block.is_wider else [])]


def _shared(block: SpadeBlock) -> nn.Conv2d:
    """The first convolutions of all the block's norms side by side."""
    return _side_by_side([_convolution(norm.mlp_shared[0]) for norm in _norms(block)])


def _modulation(norm: Spade) -> nn.Conv2d:
    """gamma's and beta's convolution side by side, gamma with the 1 that is added to it."""
    both = _side_by_side([norm.mlp_gamma, norm.mlp_beta])
    assert both.bias is not None
    both.bias[: len(both.bias) // 2] += 1
    return both


def _side_by_side(convolutions: Iterable[nn.Conv2d]) -> nn.Conv2d:
    """3x3 convolutions of the same input as one whose outputs follow one another."""
    parts = list(convolutions)
    weight = torch.cat([part.weight.detach() for part in parts])
    bias = torch.cat([part.bias.detach() for part in parts if part.bias is not None])
    one = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, device="meta")
    one.weight, one.bias = (nn.Parameter(value, requires_grad=False) for value in (weight, bias))
    return one


def _convolution(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module
