"""Refine the skin of closing eyelids by the graph of a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.graphs import Graph, load_graphs

GRAPH = "eyes"

# Names of the modules in the shipped weights and in older runs, mapped when a state is loaded.
_OLD_NAMES = {"enter": "stem", "seen": "encoder", "told": "decoder", "leave": "head"}

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class EyePainter:
    """Run `PartUNet.layers`."""

    graph: Graph

    @staticmethod
    def load(path: Path) -> EyePainter:
        """Load the weights of a `PartUNet`. Raises InputError where the file is missing or another model's."""
        _, tensors = read_arrays(path, ("side_px", "widths"))
        return EyePainter(*load_graphs((GRAPH,), rename_older(tensors), path))

    def paint(self, warped: NDArray[np.uint8], source: NDArray[np.uint8]) -> Array:
        """Predict from views (1, side_px, side_px, 6) the layers to blend, as `Paint`."""
        layers: Array = self.graph(warped, source)[0]
        return layers


def rename_older(state: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """Map the module names of older checkpoints to those of `PartUNet`."""
    renamed = {}
    for key, value in state.items():
        module, _, rest = key.partition(".")
        renamed[f"{_OLD_NAMES.get(module, module)}.{rest}"] = value
    return renamed
