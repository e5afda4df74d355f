"""Pace a live session by a monotonic clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from kdtalker.core.rates import FRAME_RATE_HZ


async def ticks(
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[int]:
    """Yield the numbers of the frames from 0, each when it is due: number n at n / 25 s after the first.

    Due times come from the number, so that they do not drift. After a delay the numbers that were missed follow at
    once: sound is late for a moment, never lost.
    """
    began, index = clock(), 0
    while True:
        await sleep(max(0.0, began + index / FRAME_RATE_HZ - clock()))
        yield index
        index += 1
