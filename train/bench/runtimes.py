"""Compare runtimes of the mesh engine's networks on this machine: `python -m train.bench.runtimes [--threads N ...]`.

Torch (eager and compiled), ONNX Runtime and, where it is installed, OpenVINO run the same networks on the same inputs,
each in a process of its own: milliseconds a call (processor time, which other programs disturb least, and wall-clock
time, the least of several), seconds of processor time until all networks are loaded, the resident set, and the largest
difference from torch. LiteRT is left out: it needs other files of the weights, by a converter that is a beta.
Then what hears live sound: the diffusion model, hop by hop, and the student, frame by frame (train/bench/speech.py).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.renderers.mesh.eyes.painter import rename_older
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find
from kdtalker.weights.graphs import FOLDER, Graph, graph_spec
from train.bench import speech

Arrays = list[NDArray[Any]]
Call = Callable[[Arrays], Arrays]

# Graphs that are measured and where their weights are. All run in every film, the lids only in blinks.
NETWORKS = {
    "whisper": WHISPER_FILE,
    "motion_denoiser": "mesh_motion.safetensors",
    "eyes": "mesh_eyes.safetensors",
    "shading": "mesh_shading.safetensors",
    "interior_cells": "mesh_interior.safetensors",
}
CALLS = 30


@dataclass(frozen=True)
class Row:
    """Hold the figures of one network: milliseconds a call of processor and of wall-clock time, and the largest
    difference from torch."""

    processor_ms: float
    wall_ms: float
    difference: float


@dataclass(frozen=True)
class Report:
    """Hold the figures of a runtime: seconds of processor time until its networks were loaded, imports included,
    resident set in MB then, and a row for each network."""

    load_s: float
    resident_mb: float
    rows: dict[str, Row]


def weights_of(name: str) -> dict[str, Any]:
    """Read the tensors of a graph's weight file, named as in the graph."""
    _, tensors = read_arrays(find(NETWORKS[name]), ())
    return rename_older(tensors) if name == "eyes" else tensors


def load_torch(threads: int) -> dict[str, Call]:
    """Load the definitions in torch, as they are."""
    return _load_torch(threads, lambda method: method)


def load_compiled(threads: int) -> dict[str, Call]:
    """Load the definitions by torch.compile; what it compiles, it compiles in the first call."""
    import torch

    return _load_torch(threads, lambda method: torch.compile(method, dynamic=False))


def _load_torch(threads: int, compiled: Callable[[Any], Any]) -> dict[str, Call]:
    import torch

    from train.tools.export_graphs import define_graphs

    torch.set_num_threads(threads)
    definitions = define_graphs()

    def caller(method: Any) -> Call:
        @torch.inference_mode()
        def call(inputs: Arrays) -> Arrays:
            found = method(*map(torch.from_numpy, inputs))
            return [value.numpy() for value in ([found] if torch.is_tensor(found) else found)]

        return call

    return {name: caller(compiled(definitions[name].method)) for name in NETWORKS}


def load_onnxruntime(threads: int) -> dict[str, Call]:
    """Load the graphs as films do."""

    def caller(graph: Graph) -> Call:
        return lambda inputs: graph(*inputs)

    return {name: caller(Graph(name, weights_of(name), threads)) for name in NETWORKS}


def load_openvino(threads: int) -> dict[str, Call]:
    """Load the graphs, with weights, by OpenVINO; in float32, as the others."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}

    def caller(name: str) -> Call:
        compiled = core.compile_model(core.read_model(graph_with_weights(name)), "CPU", settings)
        return lambda inputs: list(compiled(inputs).values())

    return {name: caller(name) for name in NETWORKS}


def graph_with_weights(name: str) -> bytes:
    """Put the weights into a graph."""
    import onnx

    model, tensors = onnx.load(FOLDER / f"{name}.onnx", load_external_data=False), weights_of(name)
    for place, tensor in enumerate(model.graph.initializer):
        if tensor.name in graph_spec(name).tensors:
            model.graph.initializer[place].CopyFrom(onnx.numpy_helper.from_array(tensors[tensor.name], tensor.name))
    content: bytes = model.SerializeToString()
    return content


RUNTIMES: dict[str, tuple[str, Callable[[int], dict[str, Call]]]] = {  # name: package, loader
    "torch": ("torch", load_torch),
    "torch.compile": ("torch", load_compiled),
    "ONNX Runtime": ("onnxruntime", load_onnxruntime),
    "OpenVINO": ("openvino", load_openvino),
}


def measure(runtime: str, threads: int, folder: Path) -> Report:
    """Measure a runtime in this process, which must be fresh; folder: what `write_inputs` wrote."""
    calls = RUNTIMES[runtime][1](threads)
    load_s, resident_mb = time.process_time(), resident_set_mb()
    rows = {}
    for name, call in calls.items():
        with np.load(folder / f"{name}.npz") as file:
            inputs, wanted = ([file[key] for key in file.files if key.startswith(kind)] for kind in ("in", "out"))
        found = call(inputs)
        difference = max(float(np.abs(a.astype(float) - b).max()) for a, b in zip(found, wanted, strict=True))
        spent = []
        for _ in range(CALLS):
            began = time.process_time(), time.perf_counter()
            call(inputs)
            spent.append((time.process_time() - began[0], time.perf_counter() - began[1]))
        processor_ms, wall_ms = 1000 * np.min(spent, axis=0)
        rows[name] = Row(float(processor_ms), float(wall_ms), difference)
    return Report(load_s, resident_mb, rows)


def resident_set_mb() -> float:
    """Read the resident set of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_inputs(folder: Path) -> None:
    """Write inputs of each network and what torch makes of them: as many windows and faces as in a film, one."""
    import torch

    from train.tools.export_graphs import define_graphs

    definitions = define_graphs()
    for name in NETWORKS:
        inputs = definitions[name].inputs
        if name == "motion_denoiser":
            inputs = tuple(value[:1] for value in inputs)
        with torch.inference_mode():
            found = definitions[name].method(*inputs)
        arrays = {f"in{place}": value.numpy() for place, value in enumerate(inputs)}
        outputs = {
            f"out{place}": value.numpy() for place, value in enumerate([found] if torch.is_tensor(found) else found)
        }
        np.savez(folder / f"{name}.npz", **arrays, **outputs)  # type: ignore[arg-type]


def installed_mb(package: str) -> float:
    """Sum the sizes of a package's installed files in MB."""
    files = importlib.metadata.files(package) or []
    return sum(file.size or 0 for file in files) / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of a call, one table for each")
    parser.add_argument("--parts", nargs="+", choices=("networks", "live"), default=["networks", "live"])
    parser.add_argument("--student", type=Path, help="student to measure; default: the package's")
    parser.add_argument("--measure", nargs=3, metavar=("RUNTIME", "THREADS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        runtime, threads, folder = options.measure
        print(json.dumps(asdict(measure(runtime, int(threads), Path(folder)))))
        return
    if "networks" in options.parts:
        _compare_networks(options.threads)
    if "live" in options.parts:
        print(f"\n{speech.HEADER}")
        for kind in (["teacher"], ["student", *([str(options.student)] if options.student else [])]):
            print(_row(kind[0], ["train.bench.speech", *kind]), flush=True)


def _compare_networks(choices: Sequence[int]) -> None:
    """Print a table for each number of threads."""
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for threads in choices:
            print(f"\n{threads} thread{'s' * (threads > 1)}\n")
            print(f"| runtime (installed) | load | resident | {' | '.join(NETWORKS)} |")
            print("|---" * (3 + len(NETWORKS)) + "|")
            for runtime, (package, _) in RUNTIMES.items():
                print(describe(runtime, package, threads, folder), flush=True)


def describe(runtime: str, package: str, threads: int, folder: str) -> str:
    """Measure a runtime in a fresh process; returns a row of the table."""
    told = _row(runtime, ["train.bench.runtimes", "--measure", runtime, str(threads), folder])
    if told.startswith("|"):
        return told
    report = json.loads(told)
    cells = [
        f"{row['processor_ms']:.1f} ({row['wall_ms']:.1f}) ms, {row['difference']:.0e}"
        for row in report["rows"].values()
    ]
    size = f"{runtime} ({installed_mb(package):.0f} MB)"
    return f"| {size} | {report['load_s']:.1f} s | {report['resident_mb']:.0f} MB | {' | '.join(cells)} |"


def _row(name: str, words: Sequence[str]) -> str:
    """Run a module in a fresh process; returns its last line, or where it fails a row that says why."""
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"| {name} | does not run here: {done.stderr.strip().splitlines()[-1]} |"
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
