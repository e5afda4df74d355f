"""From sound to features, 25 a second: the encoder of Whisper tiny.en, run on a fixed grid of blocks.

A block of 16 frames is encoded with 48 frames before it and 12 after it, always at the same positions and by the
same operations: the features do not depend on how the sound was cut. Nothing grows with the length of the sound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdtalker.audio.mel import (
    MEL_BANDS,
    MEL_BLOCK_COLUMNS,
    MEL_BLOCK_FRAMES,
    MEL_COLUMNS_PER_FRAME,
    MEL_SILENCE,
    MelState,
    advance_mel,
    scale_mel,
    start_mel,
)
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.weights.checkpoint import read_checkpoint
from kdtalker.weights.find import find

WHISPER_FILE = "whisper_tiny_en_encoder.safetensors"

_LEFT_FRAMES, _RIGHT_FRAMES = 48, 12

_BLOCK_FRAMES = MEL_BLOCK_FRAMES

_WINDOW_COLUMNS = (_LEFT_FRAMES + _BLOCK_FRAMES + _RIGHT_FRAMES) * MEL_COLUMNS_PER_FRAME

_STEPS_PER_FRAME = 2  # the encoder's own rate is 50 Hz

_LAYERS_KEPT = 3


@dataclass(frozen=True)
class EncoderState:
    """Where one sound stands: its last 76 frames of log-mel (80, 304); samples taken, frames given."""

    mel: MelState
    window: Array
    samples: int
    frames: int
    skip: int  # blocks of mel still to come before the window's middle holds the first frame


@dataclass(frozen=True)
class WhisperConfig:
    """The sizes of Whisper's encoder, as they stand in the header of its file."""

    layers: int
    heads: int
    width: int
    bands: int
    positions: int


class WhisperBlock(nn.Module):
    """One pre-norm transformer layer (N, L, width) → the same."""

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
        n, length, width = x.shape
        split = self.attention_in(self.attention_norm(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(n, length, width))
        widened: Tensor = self.mlp_in(self.mlp_norm(x))
        out: Tensor = x + self.mlp_out(functional.gelu(widened))
        return out


class WhisperNetwork(nn.Module):
    """The encoder of Whisper: scaled log-mel (N, bands, 2L) → the output of every layer, each (N, L, width).

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


class WhisperEncoder:
    """Features of a frame: the last three layers at its two 50 Hz steps, laid out (2 steps, 3 layers, width).

    Frame f covers samples [640·f, 640·f + 640). It is final once the 28 frames from the start of its block of
    16 and 40 samples more have come in.
    """

    def __init__(self, network: WhisperNetwork, mel_filters: Array) -> None:
        self.network = network.eval()
        self.mel_filters = mel_filters

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

    def start(self) -> EncoderState:
        window = np.full((MEL_BANDS, _WINDOW_COLUMNS), MEL_SILENCE, np.float32)
        mel = start_mel(lead_frames=_BLOCK_FRAMES - _RIGHT_FRAMES)
        return EncoderState(mel, window, samples=0, frames=0, skip=1)

    def encode(self, state: EncoderState, samples: Array) -> tuple[Array, EncoderState]:
        features, state = self._advance(state, samples)
        return features, replace(state, samples=state.samples + len(samples))

    def flush(self, state: EncoderState) -> Array:
        missing = frame_count(state.samples) - state.frames
        silence = np.zeros(_BLOCK_FRAMES * SAMPLES_PER_FRAME, np.float32)
        parts = [np.zeros((0, self.feature_size), np.float32)]
        while sum(map(len, parts)) < missing:
            features, state = self._advance(state, silence)
            parts.append(features)
        return np.concatenate(parts)[:missing]

    def _advance(self, state: EncoderState, samples: Array) -> tuple[Array, EncoderState]:
        blocks, mel = advance_mel(state.mel, samples, self.mel_filters)
        window, skip = state.window, state.skip
        parts = [np.zeros((0, self.feature_size), np.float32)]
        for block, level in blocks:
            window = np.concatenate([window[:, MEL_BLOCK_COLUMNS:], block], axis=1)
            if skip:
                skip -= 1
            else:
                parts.append(self._encode_window(scale_mel(window, level)))
        features = np.concatenate(parts)
        frames = state.frames + len(features)
        return features, replace(state, mel=mel, window=window, frames=frames, skip=skip)

    @torch.inference_mode()
    def _encode_window(self, mel: Array) -> Array:
        """Scaled log-mel (80, 304) → features (16, C). torch.tensor copies: same alignment, same bits."""
        layers = self.network(torch.tensor(mel)[None])[-_LAYERS_KEPT:]
        first = _LEFT_FRAMES * _STEPS_PER_FRAME
        steps = torch.cat(layers, dim=-1)[0, first : first + _BLOCK_FRAMES * _STEPS_PER_FRAME]
        features: Array = steps.reshape(_BLOCK_FRAMES, self.feature_size).numpy()
        return features


def _config(header: dict[str, Any]) -> WhisperConfig:
    return WhisperConfig(**{name: int(value) for name, value in header.items()})
