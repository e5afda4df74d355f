"""Queue what one client is sent: a slow reader loses pictures, never sound, and at last its connection."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from kdtalker.apps.live.wire import FrameHeader, pack_frame
from kdtalker.core.rates import FRAME_RATE_HZ

PICTURES_WAITING = 5  # pictures that wait at most; the oldest goes first
MAX_BEHIND_S = 10.0  # sound that waits at most
EVENTS_WAITING = 256  # at most

Frame = tuple[FrameHeader, bytes, bytes]  # header, JPEG, sound
Event = dict[str, Any]


class SlowReaderError(Exception):
    """Report a client that reads more slowly than sound is played."""


class Outbox:
    """Hold frames and events in order. `put` never blocks; `get` waits for the next message."""

    def __init__(self) -> None:
        self.pictures_dropped = 0
        self._items: deque[Frame | Event] = deque()
        self._frames = self._pictures = 0
        self._has_items = asyncio.Event()

    def put(self, item: Frame | Event, *, last: bool = False) -> None:
        """Add a frame or an event. Raises SlowReaderError where too much sound, or too many events, wait.
        last: the event that ends the connection, for which there is always a place."""
        if isinstance(item, dict):
            if len(self._items) - self._frames >= EVENTS_WAITING and not last:
                raise SlowReaderError
        else:
            if self._frames >= MAX_BEHIND_S * FRAME_RATE_HZ:
                raise SlowReaderError
            self._frames += 1
            self._pictures += bool(item[1])
            if self._pictures > PICTURES_WAITING:
                self._drop_oldest_picture()
        self._items.append(item)
        self._has_items.set()

    def _drop_oldest_picture(self) -> None:
        for place, item in enumerate(self._items):
            if not isinstance(item, dict) and item[1]:
                self._items[place] = (item[0], b"", item[2])
                self._pictures -= 1
                self.pictures_dropped += 1
                return

    async def get(self) -> bytes | str:
        """Wait for the next message: bytes of a frame, or an event as JSON."""
        while not self._items:
            self._has_items.clear()
            await self._has_items.wait()
        item = self._items.popleft()
        if isinstance(item, dict):
            return json.dumps(item)
        self._frames -= 1
        self._pictures -= bool(item[1])
        return pack_frame(*item)

    def drop_frames(self) -> list[FrameHeader]:
        """Drop all frames that wait, after an interruption; return their headers. Events stay."""
        dropped = [item[0] for item in self._items if not isinstance(item, dict)]
        self._items = deque(item for item in self._items if isinstance(item, dict))
        self._frames = self._pictures = 0
        return dropped

    def amend(self, change: Callable[[Event], Event]) -> None:
        """Change the events that wait."""
        self._items = deque(change(item) if isinstance(item, dict) else item for item in self._items)

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits."""
        return not self._items
