"""Hear with Whisper's own encoder (arXiv 2212.04356) causally: a layer attends to a stretch of the past and at most a
frame ahead, its keys and values are kept, and its matrices are changed by low-rank products (LoRA, arXiv 2106.09685),
which are all that a student's file holds of it. In numpy, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from kdtalker.audio.causal import States
from kdtalker.audio.mel import MEL_BANDS, MEL_COLUMNS_PER_FRAME
from kdtalker.audio.whisper import STEPS_PER_FRAME, WHISPER_FILE
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, quote
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find

WIDTH, HEADS = 384, 6  # of Whisper tiny
ADAPTED = ("attention_in", "attention_out", "mlp_in", "mlp_out")  # linear layers of a block
SIZES = {"attention_in": (3, 1), "attention_out": (1, 1), "mlp_in": (4, 1), "mlp_out": (1, 4)}  # outputs, inputs, widths
POSITIONS = 1500  # after so many steps, 30 s, position codes begin again
_STEM_COLUMNS = 7  # of log-mel, that the two steps of a frame take
_EPSILON = np.float32(1e-5)


@dataclass(frozen=True)
class CausalWhisperConfig:
    """Configure the encoder: features a frame that come out; rank of the low-rank changes; frames before a frame that
    a layer attends to; frames after it, of each layer, 0 or 1: the look-ahead is their sum and one, for the
    convolutions. Raises InputError for what cannot be."""

    features: int = 192
    rank: int = 32
    left_frames: int = 40
    ahead: tuple[int, ...] = (1, 1, 1, 0)

    def __post_init__(self) -> None:
        for name, most in (("features", 2048), ("rank", WIDTH), ("left_frames", POSITIONS // STEPS_PER_FRAME - 2)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"The audio encoder's {name} is {quote(getattr(self, name))}, wanted 1 to {most}.")
        if len(self.ahead) != 4 or not set(self.ahead) <= {0, 1}:
            raise InputError(f"The audio encoder's ahead is {quote(self.ahead)}, wanted 0 or 1 for each of 4 layers.")

    @property
    def lookahead_frames(self) -> int:
        """Count the frames that are heard beyond a frame."""
        return 1 + sum(self.ahead)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the widths of the stages: three layers, and the features, which the fourth one makes."""
        return (WIDTH, WIDTH, WIDTH, self.features)

    @property
    def steps(self) -> tuple[int, ...]:
        """Count the steps a frame of each stage's output."""
        return (STEPS_PER_FRAME, STEPS_PER_FRAME, STEPS_PER_FRAME, 1)


def position_codes() -> Array:
    """Compute Whisper's sinusoidal position codes (POSITIONS, WIDTH), their frequencies rounded to whole periods in
    POSITIONS steps: a stream may run for ever, and what is near is coded alike everywhere."""
    half = WIDTH // 2
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
            shapes[f"blocks.{layer}.{name}.down"] = (config.rank, inputs * WIDTH)
            shapes[f"blocks.{layer}.{name}.up"] = (outputs * WIDTH, config.rank)
    shapes |= {"output.weight": (config.features, STEPS_PER_FRAME * WIDTH), "output.bias": (config.features,)}
    return shapes | {f"norm.{kind}": (config.features,) for kind in ("weight", "bias")}


class WhisperInference:
    """Run what `CausalWhisperNetwork` defines, frame by frame. Every product has the same size in every frame but those
    of attention at the start of a stream, so features are the same to the bit however sound is cut."""

    def __init__(self, config: CausalWhisperConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: those of `whisper_shapes`."""
        self.config = config
        whisper = read_whisper()
        self._stem = [(whisper[f"{name}.weight"].transpose(2, 1, 0).reshape(-1, WIDTH).copy(), whisper[f"{name}.bias"])
                      for name in ("conv1", "conv2")]  # fmt: skip
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
            states += [np.zeros((0, WIDTH), np.float32)] * 4
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
        after[0], after[1] = (count + 1) % (POSITIONS * HEADS) + states[0][:1] * 0, columns
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
        """Convolve columns (7, 80) to the two steps (2, WIDTH) of a frame."""
        (first, first_bias), (second, second_bias) = self._stem
        x = gelu(np.stack([columns[at : at + 3].reshape(-1) for at in range(5)]) @ first + first_bias)
        return gelu(np.stack([x[at : at + 3].reshape(-1) for at in (0, 2)]) @ second + second_bias)


class _Layer:
    """A transformer layer over the two steps of a frame, with keys and values of the frames before."""

    def __init__(
        self, whisper: Mapping[str, Array], tensors: Mapping[str, Array], name: str, ahead: int, left_frames: int
    ) -> None:
        self._norms = [(whisper[f"{name}.{norm}.weight"], whisper[f"{name}.{norm}.bias"])
                       for norm in ("attention_norm", "mlp_norm")]  # fmt: skip
        self._linear = {}
        for one in ADAPTED:
            change = tensors[f"{name}.{one}.up"] @ tensors[f"{name}.{one}.down"]
            matrix = np.ascontiguousarray((whisper[f"{name}.{one}.weight"] + change).T)
            self._linear[one] = matrix, whisper[f"{name}.{one}.bias"]
        self._ahead, self._kept = STEPS_PER_FRAME * ahead, STEPS_PER_FRAME * (left_frames + 1 + ahead)

    def advance(self, x: Array, states: list[Array] | States) -> tuple[Array | None, list[Array]]:
        """Map x (2, WIDTH) of the newest frame to that of the frame `ahead` before, None while there is none."""
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
        return np.stack([row @ matrix for row in x]) + bias  # two such products are faster than one with two rows


def attend(query: Array, keys: Array, values: Array) -> Array:
    """Compute attention of HEADS heads: query (2, WIDTH), keys and values (N, WIDTH) to (2, WIDTH)."""
    q, k, v = (x.reshape(len(x), HEADS, -1).transpose(1, 0, 2) for x in (query, keys, values))
    scores = q @ k.transpose(0, 2, 1) * np.float32(q.shape[-1] ** -0.5)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(len(query), -1)


def normalise(x: Array, weight: Array, bias: Array) -> Array:
    """Normalise (n, C) row by row (layer norm)."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    normalised: Array = centred / np.sqrt(variance + _EPSILON) * weight + bias
    return normalised


def gelu(x: Array) -> Array:
    """Compute x times the normal distribution function of x."""
    half = np.float32(0.5)
    return np.asarray(half * x * (1 + erf(x * np.float32(2**-0.5))), np.float32)
