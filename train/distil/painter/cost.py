"""Measure what a painter costs: operations, and time of the graph that the program runs for every frame."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from train.harness.figures import Metrics
from train.tools.export_graphs import Definition, export

ROUNDS, CALLS = 12, 20  # networks take turns, so that what else runs on the machine disturbs all alike


def graph_figures(student: Definition, teacher: Definition) -> Metrics:
    """Measure a student's graph and its teacher's: millions of multiply-accumulate operations, ms of processor time of
    one core, and both over the teacher's."""
    (half, most), (wanted, _) = time_graphs([load_graph(one) for one in (student, teacher)])
    ours, theirs = count_macs(student) / 1e6, count_macs(teacher) / 1e6
    return {
        "MMAC": ours, "ms p50": half, "ms p95": most, "teacher MMAC": theirs, "teacher ms p50": wanted,
        "MMAC of the teacher's": ours / theirs, "ms of the teacher's": half / wanted,
    }  # fmt: skip


def count_macs(definition: Definition) -> int:
    """Count the multiply-accumulate operations of convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        definition.method(*definition.inputs)
    return int(counter.get_total_flops()) // 2


def load_graph(definition: Definition) -> Callable[[], object]:
    """Export a graph and load it as the program does, on one thread; returns what runs it once."""
    import onnxruntime

    graph, tensors = export(definition)
    state = definition.network.state_dict()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(state[name].cpu().numpy()) for name in tensors}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_external_initializers(list(values), list(values.values()))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = {one.name: given.numpy() for one, given in zip(session.get_inputs(), definition.inputs, strict=True)}
    return lambda: (values, session.run(None, inputs))  # ONNX Runtime does not keep the values of the weights alive


def time_graphs(graphs: list[Callable[[], object]]) -> list[tuple[float, float]]:
    """Time calls in turns; returns median and 95 % in ms of processor time of each, the first turn left out."""
    times_ms: list[list[float]] = [[] for _ in graphs]
    for _ in range(ROUNDS + 1):
        for run, kept in zip(graphs, times_ms, strict=True):
            for _ in range(CALLS):
                began_s = time.thread_time()
                run()
                kept.append(1000 * (time.thread_time() - began_s))
    return [(float(np.median(kept[CALLS:])), float(np.quantile(kept[CALLS:], 0.95))) for kept in times_ms]
