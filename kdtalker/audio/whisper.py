"""Encode sound with Whisper tiny.en (arXiv 2212.04356), 25 features a second, as a `BlockEncoder`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from kdtalker.audio.blocks import BlockEncoder, BlockSpan
from kdtalker.audio.mel import (
    LEVEL_FLOOR,
    MEL_BANDS,
    MEL_COLUMNS_PER_FRAME,
    MEL_HOP,
    MEL_SILENCE,
    MEL_WINDOW,
    log_mel,
    scale_mel,
    track_level,
)
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME
from kdtalker.weights.checkpoint import read_checkpoint
from kdtalker.weights.find import find

WHISPER_FILE = "whisper_tiny_en_encoder.safetensors"

_LEFT_FRAMES, RIGHT_FRAMES = 48, 12  # context that the network sees before and, by default, after a block

_STEPS_PER_FRAME = 2  # the encoder's own rate is 50 Hz

_LAYERS_KEPT = 3  # the last ones, of four


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of Whisper's encoder, as in the header of its file."""

    layers: int
    heads: int
    width: int
    bands: int
    positions: int


class WhisperBlock(nn.Module):
    """Pre-norm transformer layer: (N, L, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)  # query, key, value
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attention_in(self.attention_norm(x))
        query, key, value = rearrange(qkv, "n t (qkv heads c) -> qkv n heads t c", qkv=3, heads=self.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(rearrange(mixed, "n heads t c -> n t (heads c)"))
        widened: Tensor = self.mlp_in(self.mlp_norm(x))
        out: Tensor = x + self.mlp_out(functional.gelu(widened))
        return out


class WhisperNetwork(nn.Module):
    """Encoder of Whisper: scaled log-mel (N, bands, 2L) to the output of every layer, each (N, L, width).

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

    def forward(self, mel: Tensor) -> list[Tensor]:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        outputs[-1] = self.norm(outputs[-1])
        return outputs


@dataclass(frozen=True)
class WhisperCarry:
    """Carry the log-mel of a block and its context (80, 4 a frame) and the running level from block to block."""

    window: Array
    level: float


class WhisperEncoder(BlockEncoder[WhisperCarry]):
    """Encode a frame as the last three layers at its two 50 Hz steps, laid out (2 steps, 3 layers, width).

    Frame f covers samples [640·f, 640·f + 640). A block of 16 frames is encoded with 48 frames before it and
    `right_frames`, 0 to 16, after it: it is final once those and 40 samples more have come in.
    """

    block_frames = 16

    def __init__(self, network: WhisperNetwork, mel_filters: Array, right_frames: int = RIGHT_FRAMES) -> None:
        self.network = network.eval()
        self.mel_filters, self.right_frames = mel_filters, right_frames
        self.left_samples = (self.block_frames - right_frames) * SAMPLES_PER_FRAME + MEL_WINDOW // 2
        self.right_samples = right_frames * SAMPLES_PER_FRAME + MEL_WINDOW // 2 - MEL_HOP

    @classmethod
    def load(cls, path: Path | None = None) -> WhisperEncoder:
        """Read the encoder, by default the one in the package, as float32 on the CPU.

        Raises InputError where the file is missing, truncated or of another shape.
        """
        path = find(WHISPER_FILE) if path is None else path
        header, state = read_checkpoint(path, ["config"])
        try:
            filters = state.pop("mel_filters").numpy()
            network = WhisperNetwork(_config(header["config"]))
            network.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError):
            raise InputError(
                f"'{path}' is no Whisper encoder of the shape in its header; take the one of this version."
            ) from None
        return cls(network, filters)

    @property
    def feature_size(self) -> int:
        return _STEPS_PER_FRAME * _LAYERS_KEPT * self.network.norm.normalized_shape[0]

    def start_carry(self) -> WhisperCarry:
        columns = (_LEFT_FRAMES + self.block_frames + self.right_frames) * MEL_COLUMNS_PER_FRAME
        return WhisperCarry(np.full((MEL_BANDS, columns), MEL_SILENCE, np.float32), LEVEL_FLOOR)

    def encode_block(self, carry: WhisperCarry, samples: Array, block: BlockSpan) -> tuple[Array, WhisperCarry]:
        hop = self.block_frames * SAMPLES_PER_FRAME
        if block.first_frame == 0:
            carry = self._push_columns(carry, samples[: len(samples) - hop])
        carry = self._push_columns(carry, samples[hop:])
        return self._encode_window(scale_mel(carry.window, carry.level)), carry

    def _push_columns(self, carry: WhisperCarry, samples: Array) -> WhisperCarry:
        """Append the log-mel of one block's samples to the window, whose oldest columns go."""
        columns = log_mel(samples, self.mel_filters)
        window = np.concatenate([carry.window[:, columns.shape[1] :], columns], axis=1)
        return WhisperCarry(window, track_level(carry.level, columns))

    @torch.inference_mode()
    def _encode_window(self, mel: Array) -> Array:
        """Encode scaled log-mel (80, L) into features (16, C). torch.tensor copies: same alignment, same bits."""
        layers = self.network(torch.tensor(mel)[None])[-_LAYERS_KEPT:]
        first = _LEFT_FRAMES * _STEPS_PER_FRAME
        steps = torch.cat(layers, dim=-1)[0, first : first + self.block_frames * _STEPS_PER_FRAME]
        features: Array = rearrange(steps, "(t s) c -> t (s c)", s=_STEPS_PER_FRAME).numpy()
        return features


def average_upper_layers(features: Array) -> Array:
    """Average the upper two layers of features (T, 2304) over a frame's two steps: (T, 768), for A/V sync."""
    steps = features.astype(np.float32)
    layers = reduce(steps, "t (s l c) -> t l c", "mean", s=_STEPS_PER_FRAME, l=_LAYERS_KEPT)
    upper: Array = rearrange(layers[:, 1:], "t l c -> t (l c)")
    return upper


def _config(header: dict[str, Any]) -> WhisperConfig:
    return WhisperConfig(**{name: int(value) for name, value in header.items()})
