"""Figures of cost: what a training takes over all its starts, and what a student takes a frame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdtalker.core.files import write_atomically
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, MOTION_WIDTH, Motion
from kdtalker.core.protocols import Speech
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.diffusion.causal.network import StudentNetwork
from train.distil.registry import Ground
from train.harness.figures import Metrics
from train.harness.provenance import describe_machine

COST_FILE = "cost.json"
WARM_FRAMES, TIMED_FRAMES = 10, 150
BUDGET_MS = 400.0  # of latency in a conversation
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class TrainingCost:
    """Count what a training takes: wall-clock and processor time of its steps, without validation, and calls of the
    teacher's networks by name. Kept beside the run's state, so that all its starts add up."""

    def __init__(self, run: Path) -> None:
        self._path, self.passes = run / COST_FILE, dict[str, int]()
        self._spent, self._mark, self._is_paused = np.zeros(2), _clocks(), False

    def resume(self, step: int) -> None:
        """Go on from what was saved, where the run goes on; the clocks start."""
        if step and self._path.exists():
            kept = json.loads(self._path.read_text("utf-8"))
            self._spent, self.passes = np.array(kept["seconds"]), kept["passes"]
        self._mark = _clocks()

    def watch(self, ground: Ground) -> Ground:
        """Wrap what loads the teacher's networks, so that their calls are counted."""

        def counted(name: str, load: Callable[[], ModuleT]) -> Callable[[], ModuleT]:
            def add(*_: object) -> None:
                if self._is_paused:
                    return
                self.passes[name] = self.passes.get(name, 0) + 1

            def load_counted() -> ModuleT:
                network = load()
                network.register_forward_hook(add)
                return network

            return load_counted

        return replace(
            ground,
            load_probe=counted("probe", ground.load_probe),
            load_denoiser=counted("denoiser", ground.load_denoiser),
            load_upper_layers=counted("upper layers", ground.load_upper_layers),
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clocks, and the counting, for a while."""
        self._add()
        self._is_paused = True
        yield
        self._is_paused, self._mark = False, _clocks()

    def save(self) -> None:
        """Write what was spent so far."""
        self._add()
        kept = {"seconds": self._spent.tolist(), "passes": self.passes}
        write_atomically(self._path, lambda file: file.write(json.dumps(kept).encode()))

    def describe(self) -> dict[str, Any]:
        """Return the figures by name."""
        wall_s, processor_s = self._spent
        return {"wall-clock s": round(wall_s), "processor s": round(processor_s), "teacher passes": dict(self.passes)}

    def _add(self) -> None:
        now = _clocks()
        self._spent, self._mark = self._spent + now - self._mark, now


def _clocks() -> NDArray[np.float64]:
    return np.array([time.monotonic(), time.process_time()])


def count_macs(network: StudentNetwork) -> int:
    """Count the multiply-accumulate operations of a student a frame, mel and normalisations left out."""
    config, count, motion = network.config, network.encoder.macs, network.motion
    head, draft = (sum(one.numel() for one in part.parameters() if one.ndim == 2)
                   for part in (motion.head, motion.head.draft))  # fmt: skip
    count += sum(one.numel() for one in (*motion.input.parameters(), *motion.recurrent.parameters()) if one.ndim == 2)
    return count + config.steps * (head - draft) + (config.steps - 1) * draft


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def time_frames(speech: Speech, lookahead: int) -> Metrics:
    """Time a student's live stream frame by frame, hearing and motion, in processor time of one thread, which other
    programs disturb least: ms p50, ms p95; latency ms from the begin of a frame's sound to its motion, frame and
    look-ahead included, for 95 in 100 frames, and its share of the budget."""
    assert speech.sliding is not None
    sliding = speech.sliding(lookahead)
    rest = Motion.from_vector(np.eye(1, MOTION_WIDTH, dtype=np.float32), MESH_SPACE)
    heard = sliding.encoder.start()
    state = sliding.motion_model.start(np.zeros((KEYPOINTS, 3), np.float32), rest, speech.silence)
    frames = WARM_FRAMES + TIMED_FRAMES
    sound = 0.1 * np.random.default_rng(0).standard_normal((frames, SAMPLES_PER_FRAME), np.float32)
    times_ms = []
    with one_thread():
        for samples in sound:
            began_s = time.thread_time()
            features, heard = sliding.encoder.slide(heard, samples)
            _, state = sliding.motion_model.slide(state, features)
            times_ms.append(1000 * (time.thread_time() - began_s))
    half, most = (float(value) for value in np.quantile(times_ms[WARM_FRAMES:], [0.5, 0.95]))
    latency_ms = 1000 / FRAME_RATE_HZ * (sliding.hop_frames + sliding.lookahead_frames) + most
    return {"ms p50": half, "ms p95": most, "latency ms": latency_ms, "of the budget": latency_ms / BUDGET_MS}


def describe_processor() -> str:
    """Name the processor on which time was taken."""
    machine = describe_machine()
    return f"{machine['cpu']}, {machine['cores']} cores"
