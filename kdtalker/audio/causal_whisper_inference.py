"""Run Whisper's encoder with causal attention, frame by frame, with a key-value cache. Its matrices are held as whole
numbers of eight bits, a scale for each output (weight-only quantisation): a frame reads all of them once, and reading
them is what takes time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdtalker.audio.causal import States
from kdtalker.audio.causal_config import POSITIONS, WHISPER_WIDTH, CausalWhisperConfig
from kdtalker.audio.causal_whisper import (
    HEADS,
    SIZES,
    position_codes,
    read_whisper,
)
from kdtalker.audio.mel import MEL_BANDS, MEL_COLUMNS_PER_FRAME
from kdtalker.audio.whisper import STEPS_PER_FRAME
from kdtalker.core.arrays import Array
from kdtalker.core.compiled import kernel
from kdtalker.core.errors import InputError

_STEM_COLUMNS = 7  # of log-mel, that the two steps of a frame take
_EPSILON = np.float32(1e-5)  # of the variance in a layer norm, as in torch
_ROOT_HALF = np.float32(2**-0.5)
_UNROLLED = 8  # inputs that are summed at once, by which their number is divided


@kernel(fastmath=True)
def _apply_linear(rows: Array, matrix: NDArray[np.int8], scale: Array, bias: Array, out: Array) -> None:
    """Multiply two rows (2, C) by a matrix (C, D), then by the scale (D,) of each column; add the bias (D,)."""
    inputs, outputs = matrix.shape
    out[:] = 0
    for first in range(0, inputs, _UNROLLED):
        for column in range(outputs):
            one, other = np.float32(0), np.float32(0)
            for step in range(_UNROLLED):
                weight = np.float32(matrix[first + step, column])
                one += rows[0, first + step] * weight
                other += rows[1, first + step] * weight
            out[0, column] += one
            out[1, column] += other
    for column in range(outputs):
        out[0, column] = out[0, column] * scale[column] + bias[column]
        out[1, column] = out[1, column] * scale[column] + bias[column]


@kernel(fastmath=True)
def normalise(x: Array, weight: Array, bias: Array) -> Array:
    """Normalise (n, C) row by row (layer norm)."""
    rows, width = x.shape
    out = np.empty_like(x)
    for row in range(rows):
        mean, variance = np.float32(0), np.float32(0)
        for column in range(width):
            mean += x[row, column]
        mean /= np.float32(width)
        for column in range(width):
            variance += (x[row, column] - mean) ** 2
        factor = np.float32(1) / np.sqrt(variance / np.float32(width) + _EPSILON)
        for column in range(width):
            out[row, column] = (x[row, column] - mean) * factor * weight[column] + bias[column]
    return out


@kernel(fastmath=True)
def gelu(x: Array) -> Array:
    """Compute x times the normal distribution function of x, of (n, C)."""
    out = np.empty_like(x)
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            value = x[row, column]
            out[row, column] = np.float32(0.5) * value * np.float32(1 + math.erf(value * _ROOT_HALF))
    return out


@kernel(fastmath=True)
def attend(query: Array, keys: Array, values: Array) -> Array:
    """Compute attention of HEADS heads: query (2, C), keys and values (N, C) to (2, C)."""
    steps, width = query.shape
    count, size = keys.shape[0], width // HEADS
    out, weights = np.zeros_like(query), np.empty(count, np.float32)
    for step in range(steps):
        for first in range(0, width, size):
            for key in range(count):
                score = np.float32(0)
                for column in range(first, first + size):
                    score += query[step, column] * keys[key, column]
                weights[key] = score
            highest, total = weights.max(), np.float32(0)
            for key in range(count):
                weights[key] = np.exp((weights[key] - highest) * np.float32(size**-0.5))
                total += weights[key]
            for key in range(count):
                share = weights[key] / total
                for column in range(first, first + size):
                    out[step, column] += share * values[key, column]
    return out


@dataclass(frozen=True)
class QuantisedLinear:
    """Hold a linear layer, quantised: matrix (C, D) of whole numbers, scale and bias (D,)."""

    matrix: NDArray[np.int8]
    scale: Array
    bias: Array

    @staticmethod
    def of(weight: Array, bias: Array) -> QuantisedLinear:
        """Round a matrix (D, C) to the nearest of 255 values, evenly spaced for each output. Raises InputError for
        numbers that are not finite."""
        if not np.isfinite(weight).all():
            raise InputError("The student changes Whisper's numbers until they are not finite; it is damaged.")
        scale = np.maximum(np.abs(weight).max(1), np.float32(1e-12)) / np.float32(127)
        matrix = np.ascontiguousarray(np.round(weight / scale[:, None]).astype(np.int8).T)
        return QuantisedLinear(matrix, scale, bias)

    @property
    def weight(self) -> Array:
        """Return the matrix (D, C) that the layer multiplies by."""
        product: Array = self.matrix.T * self.scale[:, None]
        return product

    def __call__(self, rows: Array) -> Array:
        """Map rows (2, C) to (2, D)."""
        out = np.empty((STEPS_PER_FRAME, len(self.scale)), np.float32)
        _apply_linear(np.ascontiguousarray(rows), self.matrix, self.scale, self.bias, out)
        return out


class WhisperInference:
    """Run what `CausalWhisperNetwork` defines, frame by frame. Every product has the same size in every frame but those
    of attention at the start of a stream, so features are the same to the bit however sound is cut."""

    def __init__(self, config: CausalWhisperConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: those of `whisper_shapes`."""
        self.config = config
        whisper = read_whisper()
        stem = (whisper[f"{name}.weight"] for name in ("conv1", "conv2"))
        first, second = (weight.transpose(0, 2, 1).reshape(WHISPER_WIDTH, -1) for weight in stem)
        self._first = np.ascontiguousarray(first.T), whisper["conv1.bias"]
        self.second = QuantisedLinear.of(second, whisper["conv2.bias"])
        self._positions = position_codes()
        self.layers = [
            CachedLayer(whisper, tensors, f"blocks.{layer}", ahead, config.left_frames)
            for layer, ahead in enumerate(config.ahead)
        ]
        self._last = whisper["norm.weight"], whisper["norm.bias"]
        self._output = np.ascontiguousarray(tensors["output.weight"].T), tensors["output.bias"]
        self._norm = tensors["norm.weight"], tensors["norm.bias"]
        self._warm_up()

    def _warm_up(self) -> None:
        """Encode a frame, so that a session does not wait for loops to be compiled, the first time on a machine."""
        states, silence = self.start_states(), np.zeros((MEL_COLUMNS_PER_FRAME, MEL_BANDS), np.float32)
        for _ in range(self.config.lookahead_frames + 1):
            _, states = self._encode_frame(silence, states)

    def start_states(self) -> States:
        """Return the states before the first column: its number, the last columns, and those of the layers."""
        states = [np.zeros(1, np.float32), np.zeros((MEL_COLUMNS_PER_FRAME, MEL_BANDS), np.float32)]
        for _ in self.layers:
            states += [np.zeros((0, WHISPER_WIDTH), np.float32)] * 4
        return tuple(states)

    def encode(self, columns: Array, states: States, *, skip: int) -> tuple[Array, States]:
        """Encode columns (4 n, 80) of n frames to features (n - skip, C): the first frames of a stream, as many as the
        look-ahead, give none."""
        features = [np.zeros((0, self.config.features), np.float32)]
        for new in columns.reshape(-1, MEL_COLUMNS_PER_FRAME, MEL_BANDS):
            made, states = self._encode_frame(new, states)
            features += made
        assert len(features) - 1 == len(columns) // MEL_COLUMNS_PER_FRAME - skip
        return np.concatenate(features), states

    def _encode_frame(self, columns: Array, states: States) -> tuple[list[Array], States]:
        """Take the columns (4, 80) of a frame; return features (1, C) of the one `lookahead_frames` before, or none."""
        count, after = int(states[0][0]), list(states)
        after[0], after[1] = np.array([count % POSITIONS + 1], np.float32), columns  # two whole rounds of codes
        if count == 0:
            return [], tuple(after)
        x = self._convolve(np.concatenate([states[1], columns])[:_STEM_COLUMNS])
        x = x + self._positions[np.arange(2 * count - 1, 2 * count + 1) % POSITIONS]
        for number, layer in enumerate(self.layers):
            place = slice(2 + 4 * number, 6 + 4 * number)
            out, after[place] = layer.advance(x, states[place])
            if out is None:
                return [], tuple(after)
            x = out
        out = normalise(x, *self._last).reshape(1, -1) @ self._output[0] + self._output[1]
        return [normalise(out, *self._norm)], tuple(after)

    def _convolve(self, columns: Array) -> Array:
        """Convolve columns (7, 80) to the two steps (2, WHISPER_WIDTH) of a frame."""
        matrix, bias = self._first
        x = gelu(np.stack([columns[at : at + 3].reshape(-1) for at in range(5)]) @ matrix + bias)
        return gelu(self.second(np.stack([x[at : at + 3].reshape(-1) for at in (0, 2)])))


class CachedLayer:
    """Apply a transformer layer to the two steps of a frame, with cached keys and values of the frames before."""

    def __init__(
        self, whisper: Mapping[str, Array], tensors: Mapping[str, Array], name: str, ahead: int, left_frames: int
    ) -> None:
        self._norms = [(whisper[f"{name}.{norm}.weight"], whisper[f"{name}.{norm}.bias"])
                       for norm in ("attention_norm", "mlp_norm")]  # fmt: skip
        with np.errstate(over="ignore", invalid="ignore"):  # which is refused below
            changes = {one: tensors[f"{name}.{one}.up"] @ tensors[f"{name}.{one}.down"] for one in SIZES}
        self.linear = {
            one: QuantisedLinear.of(whisper[f"{name}.{one}.weight"] + change, whisper[f"{name}.{one}.bias"])
            for one, change in changes.items()
        }
        self._ahead, self._kept = STEPS_PER_FRAME * ahead, STEPS_PER_FRAME * (left_frames + 1 + ahead)

    def advance(self, x: Array, states: list[Array] | States) -> tuple[Array | None, list[Array]]:
        """Map x (2, C) of the newest frame to that of the frame `ahead` before, None while there is none."""
        keys, values, waiting, queries = states
        query, key, value = self.linear["attention_in"](normalise(x, *self._norms[0])).reshape(2, 3, -1).swapaxes(0, 1)
        keys = np.concatenate([keys, key])[-self._kept :]
        values = np.concatenate([values, value])[-self._kept :]
        waiting, queries = np.concatenate([waiting, x]), np.concatenate([queries, query])
        if len(waiting) <= self._ahead:
            return None, [keys, values, waiting, queries]
        out, query = waiting[:STEPS_PER_FRAME], queries[:STEPS_PER_FRAME]
        out = out + self.linear["attention_out"](attend(query, keys, values))
        out = out + self.linear["mlp_out"](gelu(self.linear["mlp_in"](normalise(out, *self._norms[1]))))
        return out, [keys, values, waiting[STEPS_PER_FRAME:], queries[STEPS_PER_FRAME:]]
