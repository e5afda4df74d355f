"""Run networks by ONNX Runtime: graphs that ship with the package, without weights, on the tensors of a safetensors
file. `python -m train.tools.export_graphs` writes them from the definitions in torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError

FOLDER = Path(__file__).parent.parent / "data"
MANIFEST = "graphs.json"  # file that describes the graphs: a GraphSpec by name
_ERRORS = 3  # severity from which on ONNX Runtime logs


@dataclass(frozen=True)
class GraphSpec:
    """Describe a graph: the dimensions of the network that it was made of, and the shapes of the tensors that it takes
    from a weight file, by name."""

    dimensions: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]

    def fits(self, tensors: Mapping[str, Array]) -> bool:
        """Tell whether a weight file holds the tensors of this graph."""
        return all(name in tensors and tensors[name].shape == shape for name, shape in self.tensors.items())


class Graph:
    """Run one graph on the CPU: input arrays by position to all outputs. Thread-safe."""

    def __init__(self, name: str, tensors: Mapping[str, Array], threads: int = 1) -> None:
        """Load a graph with the tensors of a weight file, of which it may need some. Raises InputError where the graph
        is missing or damaged."""
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # on Windows, where the variable of kdtalker/__init__.py is not read
        values = {key: onnxruntime.OrtValue.ortvalue_from_numpy(tensors[key]) for key in graph_spec(name).tensors}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave their core alone
        options.log_severity_level = _ERRORS
        options.enable_cpu_mem_arena = False
        options.add_external_initializers(list(values), list(values.values()))
        path = FOLDER / f"{name}.onnx"
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # the exceptions of ONNX Runtime have no common base of their own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"The graph '{path}' is missing or damaged ({reason}); reinstall the package.") from None
        self._session, self._inputs = session, [one.name for one in session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        return outputs


@cache
def _manifest() -> dict[str, GraphSpec]:
    path = FOLDER / MANIFEST
    try:
        rows = json.loads(path.read_text("utf-8"))
        return {
            name: GraphSpec(row["dimensions"], {key: tuple(shape) for key, shape in row["tensors"].items()})
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"'{path}' is missing or damaged; reinstall the package.") from None


def graph_spec(name: str) -> GraphSpec:
    """Return the description of a graph. Raises InputError where the manifest is missing or damaged."""
    spec = _manifest().get(name)
    if spec is None:
        raise InputError(f"'{FOLDER / MANIFEST}' is missing or damaged; reinstall the package.")
    return spec


def load_graphs(names: tuple[str, ...], tensors: Mapping[str, Array], path: Path) -> list[Graph]:
    """Load graphs of one weight file, whose tensors were read from `path`.

    Raises InputError where they are not those of the graphs, or a graph is missing or damaged."""
    for name in names:
        if not graph_spec(name).fits(tensors):
            raise InputError(
                f"'{path}' is another network than that of the graph '{name}'; take the one of this version."
            )
    return [Graph(name, tensors) for name in names]
