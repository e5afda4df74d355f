"""Measure a live session without a transport: its delay by a real clock, memory, processor time, and idle motion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.live.frames import Activity, LiveFrame
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from train.bench.live.subject import Measured, Pipeline, load_portrait, load_voice, percentiles
from train.bench.process import resident_mb

PUSH_S = 0.02
SETTLE_S = 12.0  # idle motion is drawn by then, which is longer than its loop
IDLE_S = 21.0  # two loops and more
WARM_UP_S = 10.0  # of speech before memory is compared
MEMORY_S = 5.0  # whose median is the memory at an end of the run
MOVED = 8  # levels of 255 by which a pixel has changed, for a picture to count as moved


def measure_engine(pipeline: Pipeline, lookahead: int, seconds: float) -> Measured:
    """Push 20 ms at a time by a real clock and take a frame each 40 ms by another, half a push later. The delay of a
    frame is the time from the push of its last sample to its being handed out."""
    delays: list[float] = []
    memory: list[float] = []
    states: dict[str, int] = {}
    pushed = [0.0]
    options = LiveOptions(lookahead=lookahead, source="microphone")
    with LiveSession(pipeline, load_portrait(pipeline), options) as session:
        _take(session, SETTLE_S, lambda tick, frame: None)
        before = session.stats
        pusher = threading.Thread(target=_push, args=(session.push, load_voice(), seconds, pushed), daemon=True)
        pusher.start()

        def note(tick: int, frame: LiveFrame) -> None:
            if frame.activity is Activity.SPEECH:
                last_piece = -(-(frame.position + SAMPLES_PER_FRAME) // int(PUSH_S * SAMPLE_RATE_HZ))
                delays.append(1000 * (time.monotonic() - pushed[min(last_piece, len(pushed) - 1)]))
                states[frame.picture_state.value] = states.get(frame.picture_state.value, 0) + 1
            if tick % FRAME_RATE_HZ == 0:
                memory.append(resident_mb())

        cores = _take(session, seconds, note, late_s=PUSH_S / 2)
        pusher.join()
        after = session.stats
    begin, end = _ends(memory)
    lost = {name: getattr(after, name) - getattr(before, name) for name in ("dropped", "skipped")}
    figures = {
        **percentiles("engine delay", delays),
        "longest engine delay, ms": max(delays, default=0.0),
        "processor time of speech, cores": cores,
        "memory at the start, MB": begin,
        "memory at the end, MB": end,
        "growth of memory, MB": end - begin,
        "frames of speech": float(len(delays)),
        **{f"pictures {state}": float(states.get(state, 0)) for state in ("new", "degraded", "repeated")},
        "pictures dropped": float(lost["dropped"]),
        "frames of sound skipped": float(lost["skipped"]),
    }
    return figures, {"delays_ms": delays, "memory_mb": memory, "stats": asdict(after), "seconds": seconds}


def measure_idle(pipeline: Pipeline, lookahead: int) -> Measured:
    """Take idle frames by the clock, before the loop of idle motion has been drawn and after it: pictures that are new,
    the longest time without motion, processor time."""
    figures: dict[str, float] = {}
    raw: dict[str, Any] = {}
    with LiveSession(pipeline, load_portrait(pipeline), LiveOptions(lookahead=lookahead)) as session:
        for name, seconds in (("first loop", SETTLE_S), ("idle", IDLE_S)):
            still = StillTimes()
            new = session.stats.new
            cores = _take(session, seconds, still.add)
            figures |= {
                f"{name}: new pictures a second": (session.stats.new - new) / seconds,
                f"{name}: longest time without motion, s": max(still.times_s),
                f"{name}: processor time, cores": cores,
            }
            raw[name] = {"still_s": still.times_s, "seconds": seconds}
    return figures, raw


class StillTimes:
    """Collect the times in s for which the picture did not move."""

    def __init__(self) -> None:
        self.times_s: list[float] = [0.0]
        self._moved: Image | None = None

    def add(self, _tick: int, frame: LiveFrame) -> None:
        if self._moved is None or cv2.absdiff(frame.picture, self._moved).max() > MOVED:
            self._moved = frame.picture
            self.times_s.append(0.0)
        self.times_s[-1] += 1 / FRAME_RATE_HZ


def _take(
    session: LiveSession, seconds: float, note: Callable[[int, LiveFrame], None], *, late_s: float = 0.0
) -> float:
    """Take a frame each 40 ms, from late_s on, and note it; returns the processor time that this process took, in
    cores."""
    began, busy_s = time.monotonic(), time.process_time()
    for tick in range(int(seconds * FRAME_RATE_HZ)):
        time.sleep(max(0.0, began + late_s + tick / FRAME_RATE_HZ - time.monotonic()))
        note(tick, session.take())
    return (time.process_time() - busy_s) / (time.monotonic() - began)


def _push(push: Callable[[Array], Any], voice: Array, seconds: float, pushed: list[float]) -> None:
    """Push pieces of a voice that is repeated; note the time of each."""
    size, began = int(PUSH_S * SAMPLE_RATE_HZ), time.monotonic()
    for piece in range(1, int(seconds / PUSH_S) + 1):
        time.sleep(max(0.0, began + piece * PUSH_S - time.monotonic()))
        push(np.take(voice, np.arange((piece - 1) * size, piece * size), mode="wrap"))
        pushed.append(time.monotonic())


def _ends(memory_mb: list[float]) -> tuple[float, float]:
    """Return the memory at the start, after the warm-up where the run is longer than that, and at the end."""
    first = int(min(WARM_UP_S, len(memory_mb) / 2))
    count = int(MEMORY_S)
    return float(np.median(memory_mb[first : first + count])), float(np.median(memory_mb[-count:]))
