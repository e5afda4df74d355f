"""Run TensorFlow Lite models that ship with the package, by LiteRT on one CPU thread."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.weights.find import find


class LiteRTModel:
    """Run one TFLite model: input without batch axis to all outputs, in file order. Thread-safe by a lock.

    Raises InputError where the file is missing or damaged."""

    def __init__(self, name: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._lock = Lock()
        self._interpreter = Interpreter(str(find(name)), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, value: NDArray[Any]) -> list[Array]:
        with self._lock:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(value[None], np.float32))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output) for output in self._outputs]
