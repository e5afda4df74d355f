"""Be a client of the WebSocket `/v1/live` that notes when each frame came."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from kdtalker.apps.live.wire import FrameHeader, unpack_frame
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.pcm import encode_pcm
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.media.picture import decode_jpeg
from train.bench.live.marks import read_number

FoundT = TypeVar("FoundT")

PIECE_S = 0.02
FULL_RATE = 0.99 * FRAME_RATE_HZ  # pictures a second that count as 25
_HELLO = {"type": "hello", "version": 1, "rate": SAMPLE_RATE_HZ, "channels": 1}


@dataclass(frozen=True)
class ReceivedFrame:
    """Hold a frame as it came: time.monotonic() of its arrival, header, and the number read from its picture; None for
    a picture that was left out or not read."""

    at_s: float
    header: FrameHeader
    number: int | None = None


class LiveClient:
    """Hold one connection: frames and events as they come."""

    def __init__(self, socket: ClientConnection, *, reads_numbers: bool = False) -> None:
        self._socket, self._reads_numbers = socket, reads_numbers
        self.frames: list[ReceivedFrame] = []
        self.events: list[dict[str, Any]] = []
        self._changed, self._has_ended = asyncio.Condition(), False
        self._receiving = asyncio.ensure_future(self._receive())

    async def push(self, samples: Array) -> None:
        """Send sound at once."""
        await self._socket.send(encode_pcm(samples))

    async def speak(self, voice: Array, seconds: float = math.inf) -> None:
        """Send a voice, repeated to a length, in pieces of 20 ms at the speed of speech."""
        size, began, piece = int(PIECE_S * SAMPLE_RATE_HZ), time.monotonic(), 0
        while piece * PIECE_S < seconds:
            await asyncio.sleep(max(0.0, began + piece * PIECE_S - time.monotonic()))
            await self.push(np.take(voice, np.arange(piece * size, (piece + 1) * size), mode="wrap"))
            piece += 1

    @asynccontextmanager
    async def speaking(self, voice: Array) -> AsyncIterator[None]:
        """Send a voice again and again, as `speak`, for a while."""
        task = asyncio.ensure_future(self.speak(voice))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def command(self, kind: str) -> None:
        """Send a control message."""
        await self._socket.send(json.dumps({"type": kind}))

    async def frame(self, is_wanted: Callable[[FrameHeader], bool], after: int = 0) -> ReceivedFrame:
        """Wait for a frame, of those from number `after` in `frames` on. Raises InputError where the session ends."""
        return await self._wait(lambda: next((f for f in self.frames[after:] if is_wanted(f.header)), None))

    async def event(self, kind: str, after: int = 0) -> dict[str, Any]:
        """Wait for an event, of those from number `after` in `events` on. Raises InputError where the session ends."""
        return await self._wait(lambda: next((e for e in self.events[after:] if e["type"] == kind), None))

    @property
    def errors(self) -> list[str]:
        """Return the codes of the errors that were told."""
        return [event["code"] for event in self.events if event["type"] == "error"]

    async def _wait(self, find: Callable[[], FoundT | None]) -> FoundT:
        async with self._changed:
            await self._changed.wait_for(lambda: find() is not None or self._has_ended)
        found = find()
        if found is None:
            raise InputError(f"The session has ended: {self._socket.close_reason or 'no reason was told'}")
        return found

    async def _receive(self) -> None:
        try:
            async for message in self._socket:
                if isinstance(message, str):
                    self.events.append(json.loads(message))
                else:
                    self._add(message)
                async with self._changed:
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            async with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _add(self, message: bytes) -> None:
        at_s = time.monotonic()
        header, jpeg, _ = unpack_frame(message)
        number = None
        if jpeg and self._reads_numbers:
            number = read_number(decode_jpeg(jpeg))
        self.frames.append(ReceivedFrame(at_s, header, number))


@asynccontextmanager
async def open_client(address: str, *, source: str = "agent", reads_numbers: bool = False) -> AsyncIterator[LiveClient]:
    """Open a session at the address of a server; source: as in the hello."""
    async with connect(f"{address}v1/live".replace("http", "ws", 1), max_size=None) as socket:
        await socket.send(json.dumps({**_HELLO, "source": source}))
        yield LiveClient(socket, reads_numbers=reads_numbers)


def gaps_ms(frames: list[ReceivedFrame], begin_s: float, end_s: float) -> list[float]:
    """Return the times between arrivals of frames in a span of time.monotonic(); a span without one is one gap."""
    times = [frame.at_s for frame in frames if begin_s <= frame.at_s < end_s]
    return [1000 * float(gap) for gap in np.diff([begin_s, *times, end_s] if len(times) < 2 else times)]


def new_pictures(frames: list[ReceivedFrame], begin_s: float, end_s: float) -> float:
    """Return the pictures a second that came in a span, those shown again and those left out not counted."""
    count = sum(
        frame.header.picture != "repeated" and frame.header.jpeg_bytes > 0
        for frame in frames if begin_s <= frame.at_s < end_s
    )  # fmt: skip
    return count / (end_s - begin_s)
