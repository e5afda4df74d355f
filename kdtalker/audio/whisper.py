"""Encode sound with Whisper tiny.en (arXiv 2212.04356), 25 features a second, as a `BlockEncoder`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange, reduce

from kdtalker.audio.blocks import BlockEncoder, BlockSpan
from kdtalker.audio.mel import (
    LEVEL_FLOOR,
    MEL_BANDS,
    MEL_COLUMNS_PER_FRAME,
    MEL_OVERHANG,
    MEL_SILENCE,
    MEL_WINDOW,
    log_mel,
    scale_mel,
    track_level,
)
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find
from kdtalker.weights.graphs import Graph, graph_spec

WHISPER_FILE = "whisper_tiny_en_encoder.safetensors"

GRAPH = "whisper"  # scaled log-mel (1, 80, 2L), steps (K,) to the last three layers side by side (1, K, 3 · width)

LEFT_FRAMES, RIGHT_FRAMES = 48, 12  # context that the network sees before and, by default, after a block

STEPS_PER_FRAME = 2  # the encoder's own rate is 50 Hz

LAYERS_KEPT = 3  # the last ones, of four

_KEPT_SAMPLES = MEL_WINDOW - MEL_OVERHANG  # before the new ones, that their first column and the one before it take


@dataclass(frozen=True)
class WhisperCarry:
    """Carry the log-mel of a block and its context (80, 4 a frame) and the running level from block to block."""

    window: Array
    level: float


class WhisperEncoder(BlockEncoder[WhisperCarry]):
    """Encode a frame as the last three layers at its two 50 Hz steps, laid out (2 steps, 3 layers, width).

    Frame f covers samples [640·f, 640·f + 640). A block of 32 frames is encoded with 48 frames before it and
    `right_frames`, 0 to 32, after it: it is final once those and 40 samples more have come in.
    """

    block_frames = 32

    def __init__(self, network: Graph, mel_filters: Array, right_frames: int = RIGHT_FRAMES) -> None:
        self.network = network
        self.mel_filters, self.right_frames = mel_filters, right_frames
        self.left_samples = (self.block_frames - right_frames) * SAMPLES_PER_FRAME + MEL_WINDOW // 2
        self.right_samples = right_frames * SAMPLES_PER_FRAME + MEL_OVERHANG

    @classmethod
    def load(cls, path: Path | None = None) -> WhisperEncoder:
        """Read the encoder, by default the one in the package.

        Raises InputError where the file is missing, truncated or of another shape.
        """
        path = find(WHISPER_FILE) if path is None else path
        _, tensors = read_arrays(path, ["config"])
        if "mel_filters" not in tensors or not graph_spec(GRAPH).fits(tensors):
            raise InputError(f"'{path}' is no Whisper encoder of the shape of tiny.en; take the one of this version.")
        return cls(Graph(GRAPH, tensors), tensors["mel_filters"])

    @property
    def feature_size(self) -> int:
        (width,) = graph_spec(GRAPH).tensors["norm.weight"]
        return STEPS_PER_FRAME * LAYERS_KEPT * width

    def sliding(self, window_frames: int) -> SlidingWhisperEncoder:
        """Return the same network as a sliding encoder."""
        return SlidingWhisperEncoder(self.network, self.mel_filters, window_frames)

    def start_carry(self) -> WhisperCarry:
        columns = (LEFT_FRAMES + self.block_frames + self.right_frames) * MEL_COLUMNS_PER_FRAME
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

    def _encode_window(self, mel: Array) -> Array:
        """Encode scaled log-mel (80, L) into features (32, C)."""
        return encode_mel(self.network, mel, LEFT_FRAMES, self.block_frames)


@dataclass(frozen=True)
class HeardWindow:
    """Hold the end of a stream: its last samples, log-mel (80, 4 a frame) of the window, and the running level."""

    samples: Array
    log_power: Array
    level: float


@dataclass(frozen=True)
class SlidingWhisperEncoder:
    """Encode the last `window_frames` frames anew whenever there is more sound (implements SlidingEncoder). Features of
    a frame get better as more is heard after it; none looks beyond the samples that are there."""

    network: Graph
    mel_filters: Array
    window_frames: int

    def start(self) -> HeardWindow:
        columns = self.window_frames * MEL_COLUMNS_PER_FRAME
        silence = np.full((MEL_BANDS, columns), MEL_SILENCE, np.float32)
        return HeardWindow(np.zeros(_KEPT_SAMPLES, np.float32), silence, LEVEL_FLOOR)

    def slide(self, state: HeardWindow, samples: Array) -> tuple[Array, HeardWindow]:
        samples = np.concatenate([state.samples, samples])
        heard = np.pad(samples, (0, MEL_OVERHANG), mode="reflect")  # the last column's missing samples
        columns = log_mel(heard, self.mel_filters)  # of the new frames, and the last one before, which is now complete
        window = np.concatenate([state.log_power[:, :-1], columns], axis=1)[:, -state.log_power.shape[1] :]
        level = track_level(state.level, columns)
        features = encode_mel(self.network, scale_mel(window, level), 0, self.window_frames)
        return features, HeardWindow(samples[-_KEPT_SAMPLES:], window, level)


def load_mel_filters() -> Array:
    """Load the encoder's mel filters (80, 201) alone. Raises InputError where its file is missing or damaged."""
    return read_arrays(find(WHISPER_FILE), (), only=("mel_filters",))[1]["mel_filters"]


def encode_mel(network: Graph, mel: Array, first: int, frames: int) -> Array:
    """Encode scaled log-mel (80, 4 T) into features (frames, C) of the frames from `first` on."""
    steps = np.arange(STEPS_PER_FRAME * first, STEPS_PER_FRAME * (first + frames))
    (layers,) = network(mel[None], steps)
    return np.ascontiguousarray(rearrange(layers[0], "(t s) c -> t (s c)", s=STEPS_PER_FRAME))


def average_upper_layers(features: Array) -> Array:
    """Average the upper two layers of features (T, 2304) over a frame's two steps: (T, 768), for A/V sync."""
    steps = features.astype(np.float32)
    layers = reduce(steps, "t (s l c) -> t l c", "mean", s=STEPS_PER_FRAME, l=LAYERS_KEPT)
    upper: Array = rearrange(layers[:, 1:], "t l c -> t (l c)")
    return upper
