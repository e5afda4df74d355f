"""Run the causal motion network in numpy, one frame a call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdtalker.audio.causal_config import CausalWhisperConfig
from kdtalker.audio.causal_inference import encoder_shapes, sigmoid, silu
from kdtalker.audio.causal_whisper import whisper_shapes
from kdtalker.core.arrays import Array
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH
from kdtalker.diffusion.causal.header import StudentConfig

PORTRAIT_WIDTH = 3 * KEYPOINTS + MOTION_WIDTH  # canonical keypoints and reference motion, normalised


class MotionInference:
    """Run what `CausalMotionNetwork` defines, on its tensors."""

    def __init__(self, config: StudentConfig, tensors: Mapping[str, Array]) -> None:
        """tensors: those of `motion_shapes`."""
        self.config = config

        def layer(name: str, bias: str = "", rows: int | None = None) -> tuple[Array, Array]:
            matrix = np.ascontiguousarray(tensors[name][:rows].T)
            return matrix, tensors[bias][:rows] if bias else np.zeros(matrix.shape[1], np.float32)

        self._input = layer("input.weight", "input.bias")
        self._input[0][list(scale_inputs(config))] = 0
        self._new, self._old = (
            layer(f"recurrent.weight_{kind}_l0", f"recurrent.bias_{kind}_l0") for kind in ("ih", "hh")
        )
        self._inner, self._draft = layer("head.input.weight", "head.input.bias"), layer("head.draft.weight")
        self._mean = layer("head.output.weight", "head.output.bias", MOTION_WIDTH)  # the log variance is for training

    def advance(self, feature: Array, before: Array, portrait: Array, noise: Array, hidden: Array) -> Array:
        """Map a frame's audio feature (C,), the motion before it (70,), portrait (133,), noise (N,) and the recurrent
        layer's state (H,) to the next state."""
        x = silu(_apply(self._input, np.concatenate([feature, before, portrait, noise])))
        new, old, width = _apply(self._new, x), _apply(self._old, hidden), self.config.hidden
        gates = sigmoid(new[: 2 * width] + old[: 2 * width])
        reset, update = gates[:width], gates[width:]
        candidate: Array = np.tanh(new[2 * width :] + reset * old[2 * width :])
        return candidate + update * (hidden - candidate)

    def predict(self, hidden: Array, steps: int) -> Array:
        """Predict the mean motion (70,) from a state (H,)."""
        inner = _apply(self._inner, hidden)
        mean = _apply(self._mean, silu(inner))
        for _ in range(steps - 1):
            mean = _apply(self._mean, silu(inner + _apply(self._draft, mean)))
        return mean


def scale_inputs(config: StudentConfig) -> tuple[int, int]:
    """Find the inputs that tell the scale of the frame before and of the portrait: the network does not see them, since
    how large a face is in its picture says nothing of how it speaks."""
    before = config.encoder.widths[-1]
    return before, before + MOTION_WIDTH + 3 * KEYPOINTS


def _apply(layer: tuple[Array, Array], x: Array) -> Array:
    product: Array = x @ layer[0]
    return product + layer[1]


def motion_shapes(config: StudentConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of a motion network: shapes by name."""
    hidden, inputs = config.hidden, config.encoder.widths[-1] + MOTION_WIDTH + PORTRAIT_WIDTH + config.noise
    shapes: dict[str, tuple[int, ...]] = {"input.weight": (config.inputs, inputs), "input.bias": (config.inputs,)}
    for kind, width in (("ih", config.inputs), ("hh", hidden)):
        shapes[f"recurrent.weight_{kind}_l0"] = (3 * hidden, width)
        shapes[f"recurrent.bias_{kind}_l0"] = (3 * hidden,)
    return shapes | {
        "head.input.weight": (hidden, hidden),
        "head.input.bias": (hidden,),
        "head.draft.weight": (hidden, MOTION_WIDTH),
        "head.output.weight": (2 * MOTION_WIDTH, hidden),
        "head.output.bias": (2 * MOTION_WIDTH,),
    }


def student_shapes(config: StudentConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of a student's file: shapes by name."""
    encoder = config.encoder
    heard = whisper_shapes(encoder) if isinstance(encoder, CausalWhisperConfig) else encoder_shapes(encoder)
    parts = {"encoder": heard, "motion": motion_shapes(config)}
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}
