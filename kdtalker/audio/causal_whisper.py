"""Whisper's own encoder (arXiv 2212.04356) with causal attention: a layer attends to a stretch of the past and at most
a frame ahead, its keys and values are kept, and its matrices are changed by low-rank products (LoRA, arXiv 2106.09685),
which are all that a student's file holds of it. Imports no torch."""

from __future__ import annotations

import numpy as np

from kdtalker.audio.causal_config import POSITIONS, WHISPER_WIDTH, CausalWhisperConfig
from kdtalker.audio.whisper import STEPS_PER_FRAME, WHISPER_FILE
from kdtalker.core.arrays import Array
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find

HEADS = 6  # of Whisper tiny
# Outputs and inputs of the linear layers of a block, in widths.
SIZES = {"attention_in": (3, 1), "attention_out": (1, 1), "mlp_in": (4, 1), "mlp_out": (1, 4)}


def position_codes() -> Array:
    """Compute Whisper's sinusoidal position codes (POSITIONS, C), their frequencies rounded to whole periods in
    POSITIONS steps: a stream may run for ever, and what is near is coded alike everywhere."""
    half = WHISPER_WIDTH // 2
    frequencies = np.exp(-np.log(10000) / (half - 1) * np.arange(half)) * POSITIONS / (2 * np.pi)
    angles = 2 * np.pi / POSITIONS * np.arange(POSITIONS)[:, None] * np.round(frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def read_whisper() -> dict[str, Array]:
    """Read the encoder's own tensors. Raises InputError where their file is missing or damaged."""
    return read_arrays(find(WHISPER_FILE), ())[1]


def whisper_shapes(config: CausalWhisperConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of a student's encoder: shapes by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(len(config.ahead)):
        for name, (outputs, inputs) in SIZES.items():
            shapes[f"blocks.{layer}.{name}.down"] = (config.rank, inputs * WHISPER_WIDTH)
            shapes[f"blocks.{layer}.{name}.up"] = (outputs * WHISPER_WIDTH, config.rank)
    shapes |= {"output.weight": (config.features, STEPS_PER_FRAME * WHISPER_WIDTH), "output.bias": (config.features,)}
    return shapes | {f"norm.{kind}": (config.features,) for kind in ("weight", "bias")}
