"""Run benchmarks of live faces and keep what they measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.allocator import share_one_arena
from kdtalker.live.options import LiveOptions
from train.bench.live.algorithm import measure_algorithm
from train.bench.live.engine import measure_engine, measure_idle
from train.bench.live.events import measure_events
from train.bench.live.sessions import (
    measure_disturbance,
    measure_first_frame,
    measure_skew,
    measure_two_sessions,
)
from train.bench.live.subject import Measured, Pipeline
from train.bench.record import BenchRecord

PARTS = {
    "algorithm": "the delay of the algorithm, without a clock",
    "engine": "delay, memory and processor time of a session without a transport",
    "idle": "a session in which nobody speaks",
    "events": 'lips at the onset of "pa", against a film',
    "first-frame": "from the first byte of a reply to its first frame, by WebSocket on loopback",
    "skew": "picture against sound as a client receives them",
    "sessions": "a second session beside the first",
    "disturbance": "garbage, half-open sockets and a slow reader beside a good session",
    "browser": "glass to glass in Chromium, by WebSocket and WebRTC",
    "network": "the same behind a network with loss and jitter (as root)",
}
DEFAULT_PARTS = [part for part in PARTS if part != "network"]


def main(arguments: Sequence[str]) -> None:
    """Measure the parts that are asked for; write results/bench/live.json after each."""
    rows = "\n".join(f"  {name:12} {purpose}" for name, purpose in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m train.bench live",
        description=f"Benchmark live faces.\n\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=DEFAULT_PARTS, help="default: all but network")
    parser.add_argument("--minutes", type=float, default=0.5, help="length of the engine's part; default: 0.5")
    parser.add_argument("--lookahead", type=int, default=LiveOptions.lookahead, help="of the parts without a server")
    parser.add_argument("--syllables", type=int, default=100, help="of the part events; default: 100")
    parser.add_argument("--clicks", type=int, default=25, help="of the browser's parts; default: 25")
    parser.add_argument("--name", default="live", help="of results/bench/NAME.json; default: live")
    asked = parser.parse_args(arguments)
    if not {"browser", "network"}.isdisjoint(asked.parts):
        from train.bench.live.browser import find_chromium

        find_chromium()  # before the other parts have taken their time
    share_one_arena()  # as the programs do
    pipeline: Pipeline = TalkingPortraitPipeline.mesh()
    pipeline.engine.speech.warm_up()
    record = BenchRecord(asked.name, "live")
    for part in asked.parts:
        figures, raw = _measure(part, asked)(pipeline)
        record.add(figures, {"part": part, **raw})
        path = record.save()
        for name, value in figures.items():
            print(f"{part + ': ' + name:80} {value:10.1f}", flush=True)
    print(path)


def _measure(part: str, asked: argparse.Namespace) -> Callable[[Pipeline], Measured]:
    if part in ("browser", "network"):
        from train.bench.live.browser import measure_browser, measure_browser_behind_network

        measure = measure_browser if part == "browser" else measure_browser_behind_network
        return partial(measure, clicks=asked.clicks)
    measures: dict[str, Callable[[Pipeline], Measured]] = {
        "algorithm": partial(measure_algorithm, lookahead=asked.lookahead),
        "engine": partial(measure_engine, lookahead=asked.lookahead, seconds=60 * asked.minutes),
        "idle": partial(measure_idle, lookahead=asked.lookahead),
        "events": partial(measure_events, lookahead=asked.lookahead, count=asked.syllables),
        "first-frame": measure_first_frame,
        "skew": measure_skew,
        "sessions": measure_two_sessions,
        "disturbance": measure_disturbance,
    }
    return measures[part]
