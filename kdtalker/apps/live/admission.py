"""Decide whether another live session may begin: whether there is a place, and time for 25 pictures a second of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from kdtalker.apps.live.wire import TRY_LATER, ProtocolError
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.core.threads import count_cores
from kdtalker.live.face import LiveFace
from kdtalker.live.frames import LiveStats
from kdtalker.live.session import LiveSession

CORES_A_SESSION = 2
RETRY_AFTER_S = 30
FRAME_MS = 1000 / FRAME_RATE_HZ
CORE_BUDGET_MS = 0.8 * FRAME_MS  # of each frame's 40 ms on one core, for all sessions; the rest is for all else
REHEARSAL_S = 1.0  # of sound


class Admission:
    """Refuse sessions for which there is no place, or that would make those that run too slow.

    A session is counted at what a frame of speech costs it, though it may be idle: it may be spoken to at any time.
    """

    def __init__(self, most: int | None = None, cores: int | None = None) -> None:
        """most: sessions at a time (default: one for each two cores). cores: default: those that this process may
        use."""
        self._cores = cores or count_cores()
        self.most = most or max(1, self._cores // CORES_A_SESSION)
        self._usual_ms = self._encode_ms = 0.0

    def learn(self, cost_ms: float) -> None:
        """Note what a frame of speech usually costs, without its encoding; 0 is not noted."""
        self._usual_ms = cost_ms or self._usual_ms

    def learn_encoding(self, cost_ms: float) -> None:
        """Add to the mean cost of encoding a picture for its client."""
        self._encode_ms += (cost_ms - self._encode_ms) / (8 if self._encode_ms else 1)

    def check(self, running: Sequence[LiveStats], opening: int = 0) -> None:
        """Raise ProtocolError where there is no place for another session, or no time. running: of those that run;
        opening: how many more are about to. The first is let in on any machine: it draws less where time is short."""
        count = len(running) + opening
        if count >= self.most:
            raise ProtocolError(
                "busy", f"All {self.most} live sessions are taken; try again in {RETRY_AFTER_S} s.", TRY_LATER
            )
        costs_ms = [self._cost_ms(stats) for stats in (*running, *[LiveStats()] * opening)]
        needed_ms, most_ms = sum(costs_ms) + max(costs_ms, default=0.0), self._cores * CORE_BUDGET_MS
        if needed_ms > most_ms:
            raise ProtocolError(
                "busy", f"With another live session all {count + 1} would need {needed_ms:.0f} ms a picture, and there "
                f"are {most_ms:.0f}; try again in {RETRY_AFTER_S} s.", TRY_LATER,
            )  # fmt: skip

    def _cost_ms(self, stats: LiveStats) -> float:
        """Estimate what a frame of speech costs a session: what it measures while it has sound, but no less than usual,
        since who is short of time draws less; a core where nothing is known."""
        is_known = self._usual_ms or (stats.hear_ms and stats.draw_ms)
        is_current = stats.waiting_s or not self._usual_ms
        measured_ms = stats.hear_ms + stats.draw_ms if is_current else 0.0
        cost_ms = max(measured_ms, self._usual_ms) + self._encode_ms
        return cost_ms if is_known else max(cost_ms, CORE_BUDGET_MS)


def rehearse(face: LiveFace, is_wanted: Callable[[], bool]) -> float:
    """Let a face speak noise that nobody hears, twice, and return the processor time in ms that a frame took the second
    time, when all is warm; 0 where it is no longer wanted. Raises InputError as `LiveFace.start`."""
    now_s, cost_ms = 0.0, 0.0
    samples = int(REHEARSAL_S * face.options.sample_rate)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, samples).astype(np.float32)
    session = LiveSession(
        face.pipeline, face.portrait, face.options, idle=face.idle, clock=lambda: now_s, threads=False
    )
    for _ in range(2):
        began_s, frames, has_ended = time.process_time(), 0, False
        session.push(noise)
        session.end_segment()
        while not has_ended:
            while session.work():
                if not is_wanted():
                    return 0.0
            frame = session.take()
            now_s += 1 / FRAME_RATE_HZ
            frames, has_ended = frames + (frame.segment is not None), bool(frame.ended)
        cost_ms = 1000 * (time.process_time() - began_s) / frames
    return cost_ms
