"""Handle the commands of one client, whatever the transport, and send it the events of its session."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import asdict
from typing import Any

from kdtalker.apps.live.segments import SegmentTracker, count_sent
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import POLICY, Command, FrameHeader, ProtocolError, error_fields
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, KDTalkerError
from kdtalker.live.frames import LiveFrame, Played
from kdtalker.live.session import LiveSession

ERRORS_IN_A_ROW = 20  # of one client, which then is cut off
TEXTS_WAITING = 4  # at most, with the one that is synthesised

_log = logging.getLogger(__name__)


class SpeechQueue:
    """Synthesise texts in their order, one at a time, and play each as soon as it is there."""

    def __init__(
        self,
        synthesise: Callable[[Command], Awaitable[Array]],
        play: Callable[[Array], None],
        send_event: Callable[[dict[str, Any]], None],
    ) -> None:
        """synthesise: returns samples (N,) of a text; play: takes them; send_event: sends an event, here errors."""
        self._synthesise, self._play, self._send_event = synthesise, play, send_event
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
                    self._send_event(error_fields(error))

    def _is_wanted(self, command: Command) -> bool:
        return bool(self._waiting) and self._waiting[0] is command


class SessionControl:
    """Hand sound and commands to a session; send events as JSON objects."""

    def __init__(
        self,
        service: LiveService,
        session: LiveSession,
        rate_hz: int,
        send_event: Callable[[dict[str, Any]], None],
        drop: Callable[[], list[FrameHeader]] = list,
    ) -> None:
        """send_event: sends an event; drop: drops frames that were taken and not sent, and returns their headers."""
        self._service, self._session, self._rate_hz = service, session, rate_hz
        self.send_event, self._drop = send_event, drop
        self._segments = SegmentTracker(rate_hz)
        self._texts = SpeechQueue(self._synthesise, self._play_text, send_event)
        self._errors = self._generation = 0
        self._unreported: tuple[Played, ...] = ()  # that end with the frame that was taken last
        self.is_ending = self._has_failed = False  # is_ending: the client asked for the end, no more sound is taken

    @property
    def has_ended(self) -> bool:
        """Tell whether the client asked for the end, and all it had sent was played."""
        return self.is_ending and not self._segments.is_waiting and not self._texts.is_busy

    def take(self) -> tuple[LiveFrame, FrameHeader]:
        """Take the next frame, with its header."""
        frame = self._session.take()
        self._unreported = frame.ended
        return frame, self._segments.header(frame)

    def is_stale(self, header: FrameHeader) -> bool:
        """Tell whether a frame was interrupted after it was taken; it must not be sent."""
        return header.generation < self._generation

    def send_ended(self) -> None:
        """Send the ends of the segments that end with the frame that was taken last, once that was sent."""
        unreported, self._unreported = self._unreported, ()
        for played in unreported:
            self._report_segment(played)

    def amend(self, event: dict[str, Any], dropped: Iterable[FrameHeader]) -> dict[str, Any]:
        """Return an event that is queued and not yet sent, corrected by the frames before it that were dropped."""
        if event["type"] != "ended":
            return event
        return self._ended(count_sent(Played(event["segment"], event["samples"], event["interrupted"]), dropped))

    async def receive(self, work: Coroutine[Any, Any, None]) -> None:
        """Handle one message, and send its error. Raises ProtocolError after too many in a row."""
        try:
            await work
            self._errors = 0
        except InputError as error:
            self.send_event(error_fields(error))
            self._errors += 1
        if self._errors >= ERRORS_IN_A_ROW:
            raise ProtocolError("too_many_errors", f"{self._errors} messages in a row were refused.", POLICY)

    async def push_audio(self, samples: Array) -> None:
        """Push samples (N,). Raises InputError."""
        if self.is_ending:
            raise ProtocolError("ended", "Sound came after the end of the session; it was dropped.")
        if len(samples) > self._rate_hz:  # long sound is copied beside the clock
            segment = await self._service.run(lambda: self._session.push(samples))
        else:
            segment = self._session.push(samples)
        self._segments.open(segment, len(samples))

    async def handle_command(self, command: Command) -> None:
        """Handle a command. Raises ProtocolError for a text that comes too late, or where too many wait."""
        if command.type == "say":
            if self.is_ending:
                raise ProtocolError("ended", "A text came after the end of the session; it was dropped.")
            self._texts.put(command)
            self._session.end_segment()
        elif command.type == "clear":
            self._clear()
        else:
            self._session.end_segment()
            self.is_ending = self.is_ending or command.type == "end"

    def report(self, **more: Any) -> None:
        """Send counts, and once that no more pictures will be drawn."""
        counts = {name: _rounded(value) for name, value in asdict(self._session.stats).items()}
        self.send_event({"type": "stats", **counts, **more})
        if self._session.error is not None and not self._has_failed:
            self._has_failed = True
            self.send_event(error_fields(ProtocolError("engine", "The engine failed; the sound goes on alone.")))

    async def close(self) -> None:
        """Stop what is being synthesised."""
        await self._texts.close()

    def _clear(self) -> None:
        self._texts.clear()
        reports, dropped = [*self._unreported, *self._session.interrupt()], self._drop()
        self._unreported = ()
        self._generation = self._session.stats.interrupts
        for played in reports:
            self._report_segment(count_sent(played, dropped))
        self.send_event({"type": "cleared", "generation": self._generation})

    def _report_segment(self, played: Played) -> None:
        self._segments.end(played)
        self.send_event(self._ended(played))

    def _ended(self, played: Played) -> dict[str, Any]:
        """Format the event that tells the end of a segment."""
        return {"type": "ended", **asdict(played), "seconds": round(played.samples / self._rate_hz, 3)}

    async def _synthesise(self, command: Command) -> Array:
        return await self._service.synthesise(command.text, command.voice, self._rate_hz)

    def _play_text(self, samples: Array) -> None:
        """Push the samples of a text as one reply; one that was opened meanwhile ends first."""
        self._session.end_segment()
        self._segments.open(self._session.push(samples), len(samples))
        self._session.end_segment()


def _rounded(value: float | None) -> float | None:
    """Round to thousandths; counts stay as they are."""
    return round(value, 3) if isinstance(value, float) else value
