"""Pace the frames of a live session by a monotonic clock."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from kdtalker.core.rates import FRAME_RATE_HZ

FRAME_S = 1 / FRAME_RATE_HZ
CATCH_UP = 0.9  # of a frame's time from frame to frame, until the sound that waits to be heard is as long as wanted
LATE_S = 5 * FRAME_S  # a frame that is later than this starts the count anew


class Pacer:
    """Pace frames by the sound that was handed out and not yet heard: it grows to `lead_s` s, so that a late frame
    is not heard as a gap. Times are seconds of any one clock."""

    def __init__(self, lead_s: float = 0.06, late_s: float = LATE_S) -> None:
        """late_s: a frame that is later than this starts the count anew; with infinity the frames that were missed
        follow at once, and the rate stays exactly 25 a second."""
        self.lead_s, self.late_s = lead_s, late_s
        self.next_s: float | None = None  # when the next frame is due; None: at once
        self.heard_s = 0.0  # when all sound that was handed out has been heard

    def advance(self, now_s: float, *, has_sound: bool) -> float:
        """Count a frame that is handed out now, and set `next_s`. Returns when its sound is heard and its picture is to
        be seen. has_sound: whether its sound is buffered for `lead_s`; without it frames are due every 40 ms."""
        due_s = now_s if self.next_s is None or now_s - self.next_s > self.late_s else self.next_s
        begin_s = max(now_s, self.heard_s)
        if has_sound:
            self.heard_s = begin_s + FRAME_S
            self.next_s = max(due_s + CATCH_UP * FRAME_S, self.heard_s - self.lead_s)
        else:
            self.next_s = due_s + FRAME_S
        return begin_s

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next frame is due."""
        return 0.0 if self.next_s is None else max(0.0, self.next_s - now_s)

    def cut(self) -> None:
        """Forget the sound that was handed out and not yet heard: it was dropped."""
        self.heard_s = 0.0


async def ticks(
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[int]:
    """Yield the numbers of the frames from 0, each when it is due: number n at n / 25 s after the first.

    After a delay the numbers that were missed follow at once: sound is late for a moment, never lost.
    """
    pacer, index = Pacer(late_s=math.inf), 0
    while True:
        await sleep(pacer.wait_s(clock()))
        pacer.advance(clock(), has_sound=False)
        yield index
        index += 1
