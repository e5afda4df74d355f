"""Benchmark live faces by four clocks: algorithmic, engine, glass to glass in a browser, event to event."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline, read_image, read_sound
from kdtalker.core.arrays import Array
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.live.frames import Activity
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from train.bench.live_events import measure_events
from train.bench.record import ROOT, BenchRecord

PORTRAIT, VOICE = ROOT / "examples" / "grace_hopper.jpg", ROOT / "examples" / "austen_0870.wav"
SIDE_PX = 512
PUSH_S = 0.02
CLOCKS = ("algorithmic", "engine", "browser", "events")
SETTLE_S = 12.0  # before memory is first measured: idle life is drawn by then

Pipeline = TalkingPortraitPipeline[Any]


def main(arguments: Sequence[str]) -> None:
    """Run the clocks that are asked for and write results/bench/live.json."""
    parser = argparse.ArgumentParser(prog="python -m train.bench live", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.5, help="length of the engine's clock (default: 0.5)")
    parser.add_argument("--lookahead", type=int, default=LiveOptions.lookahead)
    parser.add_argument("--only", choices=CLOCKS, action="append", help="measure this clock alone")
    parser.add_argument("--name", default="live", help="of the JSON file (default: live)")
    asked = parser.parse_args(arguments)
    clocks = asked.only or CLOCKS
    record = BenchRecord(asked.name, "live")
    pipeline: Pipeline = TalkingPortraitPipeline.mesh()
    pipeline.engine.speech.warm_up()
    if "algorithmic" in clocks:
        record.add(*measure_algorithm(pipeline, asked.lookahead))
    if "engine" in clocks:
        record.add(*measure_engine(pipeline, asked.lookahead, 60 * asked.minutes))
    if "events" in clocks:
        record.add(*measure_events(pipeline, asked.lookahead, PORTRAIT))
    if "browser" in clocks:
        from train.bench.live_browser import measure_browser

        for transport in ("websocket", "webrtc"):
            record.add(*measure_browser(pipeline, transport, PORTRAIT))
    for name, values in record.figures.items():
        print(f"{name:48} {values[-1]:10.1f}")
    print(record.save())


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of values in ms, by name."""
    return {f"{name} p{share}, ms": float(np.percentile(values, share)) for share in (50, 95, 99)}


def measure_algorithm(pipeline: Pipeline, lookahead: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Replace the sound from sample k on by zeros, for many k, and find the first frame that differs: its distance to k
    is what the algorithm waits for, in ms beyond the frame's own 40. No clock is involved."""
    portrait = pipeline.portrait(read_image(PORTRAIT), max_side=SIDE_PX)
    voice = np.concatenate(list(read_sound(VOICE, 0, 3)))
    whole = _generate(pipeline, portrait, voice, lookahead)
    waits = []
    for k in range(30 * SAMPLES_PER_FRAME - 1, 36 * SAMPLES_PER_FRAME, SAMPLES_PER_FRAME):
        cut = np.where(np.arange(len(voice)) < k, voice, 0).astype(np.float32)
        differs = np.abs(_generate(pipeline, portrait, cut, lookahead) - whole).max(1) > 0
        waits.append(1000 * (k + 1 - SAMPLES_PER_FRAME * (int(differs.argmax()) + 1)) / SAMPLE_RATE_HZ)
    return {"algorithmic delay, ms": max(waits)}, {"clock": "algorithmic", "waits_ms": waits}


def _generate(pipeline: Pipeline, portrait: Any, voice: Array, lookahead: int) -> Array:
    stream = pipeline.start_motion(portrait, Options(lookahead=lookahead))
    return np.concatenate([stream.push(voice).vector(), stream.flush().vector()])


def measure_engine(pipeline: Pipeline, lookahead: int, seconds: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Push 20 ms at a time by a real clock and take a frame each 40 ms by another: the delay of a frame is the time
    from the push of its last sample to its being handed out."""
    portrait = pipeline.portrait(read_image(PORTRAIT), max_side=SIDE_PX)
    voice = np.concatenate(list(read_sound(VOICE)))
    options = LiveOptions(lookahead=lookahead, source="microphone")
    delays: list[float] = []
    memory: list[float] = []
    with LiveSession(pipeline, portrait, options) as session:
        _idle(session, SETTLE_S)
        idle_share = _idle(session, 5.0)
        began, pushed = time.monotonic(), [0.0]
        pusher = threading.Thread(target=_push, args=(session.push, voice, began, seconds, pushed), daemon=True)
        pusher.start()
        busy_s = time.process_time()
        for tick in range(int(seconds * FRAME_RATE_HZ)):
            time.sleep(max(0.0, began + tick / FRAME_RATE_HZ - time.monotonic()))
            frame = session.take()
            if frame.activity is Activity.SPEECH:
                last_piece = -(-(frame.position + SAMPLES_PER_FRAME) // int(PUSH_S * SAMPLE_RATE_HZ))
                delays.append(1000 * (time.monotonic() - pushed[min(last_piece, len(pushed) - 1)]))
            if tick % FRAME_RATE_HZ == 0:
                memory.append(resident_mb())
        share = (time.process_time() - busy_s) / seconds
        pusher.join()
        counts = asdict(session.stats)
    figures = {
        **percentiles("engine delay", delays),
        "processor time of speech, cores": share,
        "processor time of idle life, cores": idle_share,
        "growth of memory, MB": memory[-1] - memory[len(memory) // 4],
        **{f"pictures {name}": float(counts[name]) for name in ("new", "degraded", "repeated", "dropped")},
    }
    return figures, {"clock": "engine", "delays_ms": delays, "memory_mb": memory, "stats": counts, "seconds": seconds}


def _push(push: Callable[[Array], Any], voice: Array, began: float, seconds: float, pushed: list[float]) -> None:
    """Push pieces of a voice that is repeated; note the time of each."""
    size = int(PUSH_S * SAMPLE_RATE_HZ)
    for piece in range(1, int(seconds / PUSH_S) + 1):
        time.sleep(max(0.0, began + piece * PUSH_S - time.monotonic()))
        push(np.take(voice, np.arange((piece - 1) * size, piece * size), mode="wrap"))
        pushed.append(time.monotonic())


def _idle(session: LiveSession, seconds: float) -> float:
    """Take idle frames by the clock; returns the share of a core that they took."""
    began, busy_s = time.monotonic(), time.process_time()
    for tick in range(int(seconds * FRAME_RATE_HZ)):
        time.sleep(max(0.0, began + tick / FRAME_RATE_HZ - time.monotonic()))
        session.take()
    return (time.process_time() - busy_s) / seconds


def resident_mb() -> float:
    """Return the resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
