"""The denoiser as the sampler sees it: arrays in, arrays out. It is defined and trained in torch; a graph of the
shipped architecture runs it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from kdtalker.core.arrays import Array
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.header import require_shapes
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.graphs import Graph, graph_spec

ADAPTER, DENOISER = "motion_adapter", "motion_denoiser"  # graphs
# Fields of a config that say how a network is trained, sampled or described: it is the same network with others.
_NOT_THE_NETWORK = {
    "dropout",
    "prediction",
    "train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "scheduler",
} | {"timestep_spacing", "context", "overlap", "relative", "audio_encoder", "audio_features"}


class MotionDenoiser(Protocol):
    """Denoise B windows of motion; see `Denoiser`, which defines it."""

    @property
    def config(self) -> DenoiserConfig: ...

    def encode_audio(self, features: Array) -> Array:
        """Project features (B, frames, audio_input) to the condition's audio (B, frames, audio_width)."""

    def denoise(self, tokens: Array, timesteps: Array, audio: Array) -> Array:
        """Denoise tokens (B, 2 + frames, 70) to the prediction of that shape; timesteps (B, 2 + frames), 0 where a
        frame is known; audio (B, frames, audio_width)."""


class GraphDenoiser:
    """Run the denoiser by ONNX Runtime (implements MotionDenoiser)."""

    def __init__(self, config: DenoiserConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: of a checkpoint that `fits`. Raises InputError where a graph is damaged."""
        self.config = config
        self._adapter, self._denoiser = Graph(ADAPTER, tensors), Graph(DENOISER, tensors)

    def encode_audio(self, features: Array) -> Array:
        audio: Array = self._adapter(features)[0]
        return audio

    def denoise(self, tokens: Array, timesteps: Array, audio: Array) -> Array:
        prediction: Array = self._denoiser(tokens, timesteps, audio)[0]
        return prediction

    @staticmethod
    def load(path: Path, config: DenoiserConfig) -> GraphDenoiser | None:
        """Load a checkpoint, None where its architecture is another than that of the graphs. Raises InputError where
        the file is damaged."""
        if network_dimensions(config) != graph_spec(DENOISER).dimensions:
            return None
        require_shapes(path, graph_spec(ADAPTER).tensors | graph_spec(DENOISER).tensors)
        _, tensors = read_arrays(path, ())
        return GraphDenoiser(config, tensors)


def network_dimensions(config: DenoiserConfig) -> dict[str, int]:
    """Return the fields of a config that decide the graph of its network."""
    return {one.name: getattr(config, one.name) for one in fields(config) if one.name not in _NOT_THE_NETWORK}
