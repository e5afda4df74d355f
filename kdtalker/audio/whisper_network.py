"""Encoder network of Whisper (arXiv 2212.04356) in torch, as the graph that encodes sound is exported from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of Whisper's encoder, as in the header of its file."""

    layers: int
    heads: int
    width: int
    bands: int
    positions: int


class WhisperBlock(nn.Module):
    """Pre-norm transformer layer: (N, L, width) to the same, or to (N, K, width) at `steps` (K,) alone, which still
    attend to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)  # query, key, value
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        normed = self.attention_norm(x)
        if steps is None:
            qkv = rearrange(self.attention_in(normed), "n t (qkv heads c) -> qkv n heads t c", qkv=3, heads=self.heads)
            query, key, value = qkv
        else:
            x, width = x[:, steps], x.shape[-1]
            weight, bias = self.attention_in.weight, self.attention_in.bias
            query = functional.linear(normed[:, steps], weight[:width], bias[:width])
            query = rearrange(query, "n t (heads c) -> n heads t c", heads=self.heads)
            both = functional.linear(normed, weight[width:], bias[width:])
            key, value = rearrange(both, "n t (kv heads c) -> kv n heads t c", kv=2, heads=self.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(rearrange(mixed, "n heads t c -> n t (heads c)"))
        widened: Tensor = self.mlp_in(self.mlp_norm(x))
        out: Tensor = x + self.mlp_out(functional.gelu(widened))
        return out


class WhisperNetwork(nn.Module):
    """Encoder of Whisper: scaled log-mel (N, bands, 2L) to the output of every layer, each (N, L, width); or at `steps`
    (K,) alone, (N, K, width): then the last layer computes queries and MLP at these alone.

    The final layer norm is applied to the last one. L may be anything up to the config's positions.
    """

    positions: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.bands, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(config.positions, config.width))
        self.blocks = nn.ModuleList(WhisperBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, mel: Tensor, steps: Tensor | None = None) -> list[Tensor]:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        outputs = []
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
            outputs.append(x if steps is None else x[:, steps])
        outputs.append(last(x, steps))
        outputs[-1] = self.norm(outputs[-1])
        return outputs
