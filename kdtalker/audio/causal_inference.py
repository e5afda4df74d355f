"""Run the causal audio encoder in numpy: its matrices are so small that a runtime's calls would cost what they do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdtalker.audio.causal import States
from kdtalker.audio.causal_config import CausalEncoderConfig
from kdtalker.audio.mel import MEL_BANDS
from kdtalker.core.arrays import Array

_EPSILON = np.float32(1e-5)  # of the variance in a layer norm, as in torch


class EncoderInference:
    """Run what `CausalEncoderNetwork` defines, on its tensors. Products of one size take the same operations, so a
    frame that is encoded alone is the same to the bit in any stream."""

    def __init__(self, config: CausalEncoderConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: those of `encoder_shapes`."""
        self.config = config
        self._stages = [_Stage(tensors, f"stages.{place}", stride) for place, stride in enumerate(config.strides)]
        self._norm = _LayerNorm(tensors, "norm")

    def start_states(self) -> States:
        """Return the states before the first column: zeros."""
        convolutions = [one for stage in self._stages for one in stage.convolutions]
        return tuple(np.zeros((one.kept, one.inputs), np.float32) for one in convolutions)

    def encode(self, columns: Array, states: States, *, skip: int) -> tuple[Array, States]:
        """Encode columns (4 n, 80) of n frames to features (n - skip, C): the last stage drops `skip` frames."""
        x, after = columns, []
        for place, stage in enumerate(self._stages):
            is_last = place == len(self._stages) - 1
            x, kept = stage.advance(x, states[3 * place : 3 * place + 3], skip if is_last else 0)
            after += kept
        return self._norm(x), tuple(after)


def encoder_shapes(config: CausalEncoderConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of an encoder: shapes by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (inputs, width) in enumerate(zip((MEL_BANDS, *config.widths), config.widths, strict=False)):
        name = f"stages.{place}"
        shapes |= {f"{name}.input.weight": (width, inputs, config.kernel), f"{name}.input.bias": (width,)}
        for one in range(2):
            shapes |= {f"{name}.norms.{one}.{kind}": (width,) for kind in ("weight", "bias")}
            shapes[f"{name}.convolutions.{one}.weight"] = (width, width, config.kernel)
            shapes[f"{name}.convolutions.{one}.bias"] = (width,)
    return shapes | {f"norm.{kind}": (config.widths[-1],) for kind in ("weight", "bias")}


class _Convolution:
    """Convolve x (n stride, C) in time, the last inputs being a state in and out; see `CausalConv`."""

    def __init__(self, tensors: Mapping[str, Array], name: str, stride: int = 1) -> None:
        weight = tensors[f"{name}.weight"]
        self.outputs, self.inputs, self._kernel = weight.shape
        self._matrix = np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, self.outputs))
        self._bias, self._stride = tensors[f"{name}.bias"], stride
        self.kept = self._kernel - stride

    def advance(self, x: Array, state: Array) -> tuple[Array, Array]:
        """Map x (n stride, C) and state (kept, C) to (n, D) and the next state."""
        inputs = np.concatenate([state, x])
        starts = range(0, len(x), self._stride)
        windows = np.empty((len(starts), self._kernel * self.inputs), np.float32)
        for row, start in zip(windows, starts, strict=True):
            row[:] = inputs[start : start + self._kernel].reshape(-1)
        return windows @ self._matrix + self._bias, inputs[len(inputs) - self.kept :]


class _LayerNorm:
    """Normalise (n, C) row by row."""

    def __init__(self, tensors: Mapping[str, Array], name: str) -> None:
        self._weight, self._bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        normalised: Array = centred / np.sqrt(variance + _EPSILON) * self._weight + self._bias
        return normalised


class _Stage:
    """Convolve with a stride, then add a residual block; see `CausalStage`."""

    def __init__(self, tensors: Mapping[str, Array], name: str, stride: int) -> None:
        self._norms = [_LayerNorm(tensors, f"{name}.norms.{one}") for one in range(2)]
        inner = [_Convolution(tensors, f"{name}.convolutions.{one}") for one in range(2)]
        self.convolutions = [_Convolution(tensors, f"{name}.input", stride), *inner]

    def advance(self, x: Array, states: States, skip: int) -> tuple[Array, list[Array]]:
        """Map x (n stride, C) to (n - skip, width)."""
        x, first = self.convolutions[0].advance(x, states[0])
        x, after = x[skip:], [first]
        h = x
        for norm, convolution, before in zip(self._norms, self.convolutions[1:], states[1:], strict=True):
            h, state = convolution.advance(silu(norm(h)), before)
            after.append(state)
        return x + h, after


def sigmoid(x: Array) -> Array:
    """Compute the logistic function."""
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * x) + half)  # which does not overflow


def silu(x: Array) -> Array:
    """Compute x sigmoid(x)."""
    return x * sigmoid(x)
