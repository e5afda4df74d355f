"""Run Whisper's encoder, heard causally, in numpy, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.special import erf

from kdtalker.audio.causal import States
from kdtalker.audio.causal_config import POSITIONS, WHISPER_WIDTH, CausalWhisperConfig
from kdtalker.audio.causal_inference import normalise
from kdtalker.audio.causal_whisper import (
    HEADS,
    SIZES,
    position_codes,
    read_whisper,
)
from kdtalker.audio.mel import MEL_BANDS, MEL_COLUMNS_PER_FRAME
from kdtalker.audio.whisper import STEPS_PER_FRAME
from kdtalker.core.arrays import Array

_STEM_COLUMNS = 7  # of log-mel, that the two steps of a frame take


class WhisperInference:
    """Run what `CausalWhisperNetwork` defines, frame by frame. Every product has the same size in every frame but those
    of attention at the start of a stream, so features are the same to the bit however sound is cut."""

    def __init__(self, config: CausalWhisperConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: those of `whisper_shapes`."""
        self.config = config
        whisper = read_whisper()
        names = "conv1", "conv2"
        matrices = [whisper[f"{name}.weight"].transpose(2, 1, 0).reshape(-1, WHISPER_WIDTH).copy() for name in names]
        self._stem = [(matrix, whisper[f"{name}.bias"]) for matrix, name in zip(matrices, names, strict=True)]
        self._positions = position_codes()
        self._layers = [
            _Layer(whisper, tensors, f"blocks.{layer}", ahead, config.left_frames)
            for layer, ahead in enumerate(config.ahead)
        ]
        self._last = whisper["norm.weight"], whisper["norm.bias"]
        self._output = np.ascontiguousarray(tensors["output.weight"].T), tensors["output.bias"]
        self._norm = tensors["norm.weight"], tensors["norm.bias"]

    def start_states(self) -> States:
        """Return the states before the first column: its number, the last columns, and those of the layers."""
        states = [np.zeros(1, np.float32), np.zeros((MEL_COLUMNS_PER_FRAME, MEL_BANDS), np.float32)]
        for _ in self._layers:
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
        after[0], after[1] = np.array([count % POSITIONS + 1], np.float32), columns
        if count == 0:
            return [], tuple(after)
        x = self._convolve(np.concatenate([states[1], columns])[:_STEM_COLUMNS])
        x = x + self._positions[np.arange(2 * count - 1, 2 * count + 1) % POSITIONS]
        for number, layer in enumerate(self._layers):
            place = slice(2 + 4 * number, 6 + 4 * number)
            out, after[place] = layer.advance(x, states[place])
            if out is None:
                return [], tuple(after)
            x = out
        out = normalise(x, *self._last).reshape(1, -1) @ self._output[0] + self._output[1]
        return [normalise(out, *self._norm)], tuple(after)

    def _convolve(self, columns: Array) -> Array:
        """Convolve columns (7, 80) to the two steps (2, WHISPER_WIDTH) of a frame."""
        (first, first_bias), (second, second_bias) = self._stem
        x = gelu(np.stack([columns[at : at + 3].reshape(-1) for at in range(5)]) @ first + first_bias)
        return gelu(multiply_rows([x[at : at + 3].reshape(-1) for at in (0, 2)], second) + second_bias)


class _Layer:
    """A transformer layer over the two steps of a frame, with keys and values of the frames before."""

    def __init__(
        self, whisper: Mapping[str, Array], tensors: Mapping[str, Array], name: str, ahead: int, left_frames: int
    ) -> None:
        self._norms = [(whisper[f"{name}.{norm}.weight"], whisper[f"{name}.{norm}.bias"])
                       for norm in ("attention_norm", "mlp_norm")]  # fmt: skip
        self._linear = {}
        for one in SIZES:
            change = tensors[f"{name}.{one}.up"] @ tensors[f"{name}.{one}.down"]
            matrix = np.ascontiguousarray((whisper[f"{name}.{one}.weight"] + change).T)
            self._linear[one] = matrix, whisper[f"{name}.{one}.bias"]
        self._ahead, self._kept = STEPS_PER_FRAME * ahead, STEPS_PER_FRAME * (left_frames + 1 + ahead)

    def advance(self, x: Array, states: list[Array] | States) -> tuple[Array | None, list[Array]]:
        """Map x (2, C) of the newest frame to that of the frame `ahead` before, None while there is none."""
        keys, values, waiting, queries = states
        query, key, value = np.split(self._apply("attention_in", normalise(x, *self._norms[0])), 3, axis=1)
        keys = np.concatenate([keys, key])[-self._kept :]
        values = np.concatenate([values, value])[-self._kept :]
        waiting, queries = np.concatenate([waiting, x]), np.concatenate([queries, query])
        if len(waiting) <= self._ahead:
            return None, [keys, values, waiting, queries]
        out, query = waiting[:STEPS_PER_FRAME], queries[:STEPS_PER_FRAME]
        out = out + self._apply("attention_out", attend(query, keys, values))
        out = out + self._apply("mlp_out", gelu(self._apply("mlp_in", normalise(out, *self._norms[1]))))
        return out, [keys, values, waiting[STEPS_PER_FRAME:], queries[STEPS_PER_FRAME:]]

    def _apply(self, name: str, x: Array) -> Array:
        matrix, bias = self._linear[name]
        return multiply_rows(x, matrix) + bias


def multiply_rows(rows: Iterable[Array], matrix: Array) -> Array:
    """Multiply few rows (C,) by a matrix (C, D), one after the other, which is faster than all at once."""
    return np.stack([row @ matrix for row in rows])


def attend(query: Array, keys: Array, values: Array) -> Array:
    """Compute attention of HEADS heads: query (2, C), keys and values (N, C) to (2, C)."""
    q, k, v = (x.reshape(len(x), HEADS, -1).transpose(1, 0, 2) for x in (query, keys, values))
    scores = q @ k.transpose(0, 2, 1) * np.float32(q.shape[-1] ** -0.5)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(len(query), -1)


def gelu(x: Array) -> Array:
    """Compute x times the normal distribution function of x."""
    half = np.float32(0.5)
    return np.asarray(half * x * (1 + erf(x * np.float32(2**-0.5))), np.float32)
