"""Disturb a live server from a process of its own: garbage, half-open sockets, a slow reader.

`python -m train.bench.live.disturb ADDRESS SECONDS` prints "opened" where the slow session has begun, then the bytes of
garbage that it sent; what is half open stays so until its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

RATE_BYTES_S, PIECE_BYTES = 4_000_000, 100_000
HALF_OPEN = 16  # sockets that never say hello, and as many TCP connections that say nothing at all
SLOW_SOUND_S = 100
_GONE = (WebSocketException, OSError, TimeoutError)


async def disturb(address: str, seconds: float) -> None:
    """Disturb for a while, and until stdin ends."""
    place, url = urlsplit(address), f"{address}v1/live".replace("http", "ws", 1)
    async with AsyncExitStack() as stack:
        for _ in range(HALF_OPEN):
            with suppress(*_GONE):
                await stack.enter_async_context(connect(url, ping_interval=None, close_timeout=0.1))
                _, writer = await asyncio.open_connection(place.hostname, place.port)
                stack.callback(writer.close)
        slow = await stack.enter_async_context(connect(url, ping_interval=None, max_size=None, close_timeout=0.1))
        with suppress(*_GONE):
            await slow.send(json.dumps({"type": "hello", "version": 1, "rate": 16_000}))
            await slow.recv()  # it is ready
            await slow.send(bytes(2 * 16_000 * SLOW_SOUND_S))
            slow.transport.pause_reading()  # neither reads nor answers pings
        print("opened", flush=True)
        print(await _send_garbage(url, time.monotonic() + seconds), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _send_garbage(url: str, until_s: float) -> int:
    sent, began = 0, time.monotonic()
    while time.monotonic() < until_s:
        with suppress(*_GONE):
            async with connect(url, ping_interval=None, close_timeout=0.1) as socket:
                while time.monotonic() < until_s:
                    await asyncio.sleep(max(0.0, began + sent / RATE_BYTES_S - time.monotonic()))
                    sent += PIECE_BYTES
                    await socket.send(os.urandom(PIECE_BYTES))
    return sent


if __name__ == "__main__":
    asyncio.run(disturb(sys.argv[1], float(sys.argv[2])))
