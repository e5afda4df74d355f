"""Queue the texts that one client wants said: one is synthesised at a time, few wait."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from kdtalker.apps.live.wire import Command, ProtocolError, error_fields
from kdtalker.core.arrays import Array
from kdtalker.core.errors import KDTalkerError

TEXTS_WAITING = 4  # at most, with the one that is synthesised

_log = logging.getLogger(__name__)


class SpeechQueue:
    """Synthesise texts in their order, one at a time, and play each as soon as it is there."""

    def __init__(
        self,
        synthesise: Callable[[Command], Awaitable[Array]],
        play: Callable[[Array], None],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """synthesise: returns samples (N,) of a text; play: takes them; tell: sends an event, here errors."""
        self._synthesise, self._play, self._tell = synthesise, play, tell
        self._waiting: deque[Command] = deque()  # the first is at work
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Tell whether a text is still to be played."""
        return bool(self._waiting)

    def put(self, command: Command) -> None:
        """Add a text. Raises ProtocolError where too many wait."""
        if len(self._waiting) >= TEXTS_WAITING:
            raise ProtocolError(
                "say", f"{TEXTS_WAITING} texts wait to be said, wanted no more at a time; send this one again later."
            )
        self._waiting.append(command)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())

    def clear(self) -> None:
        """Drop all texts; what the one at work becomes is not played."""
        self._waiting.clear()

    async def close(self) -> None:
        """Drop all texts and stop."""
        self.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            command, error = self._waiting[0], None
            try:
                samples = await self._synthesise(command)
                if self._is_wanted(command):
                    self._play(samples)
            except KDTalkerError as refused:
                error = ProtocolError("say", str(refused))
            except Exception as failure:
                _log.exception("A text could not be said.")
                error = ProtocolError("say", f"The text could not be said ({type(failure).__name__}).")
            if self._is_wanted(command):
                self._waiting.popleft()
                if error is not None:
                    self._tell(error_fields(error))

    def _is_wanted(self, command: Command) -> bool:
        return bool(self._waiting) and self._waiting[0] is command
