"""Audio output of an agent session that reports the end of each segment exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.agents.utils.aio import ChanClosed
from livekit.agents.voice.avatar import AudioSegmentEnd, QueueAudioOutput
from livekit.agents.voice.io import AudioOutput


class SegmentAudioOutput(QueueAudioOutput):
    """Queue the audio of an agent session for an `AvatarRunner`, one segment at a time.

    `AvatarRunner` keeps one position and one flag for what it plays: it reports nothing for a segment that is cleared
    before it read a frame of it, or whose frames it read before the segment before it had ended. Here the next segment
    is handed to it when the one before has been reported, and segments that it never saw are reported as interrupted at
    position 0.
    """

    def __init__(self, *, sample_rate: int | None = None) -> None:
        super().__init__(sample_rate=sample_rate, wait_playback_start=True)
        self._is_reported = asyncio.Event()  # the segment that the runner plays, or there is none
        self._is_reported.set()
        self._is_inside = False  # frames of a segment, but not its end, were handed to the runner
        self._generation = 0  # grows with each clear_buffer
        self._is_clearing = False  # the runner was told to clear, and has not reported
        self._unseen = 0  # segments to report after the one that the runner plays
        self._is_closed = False
        self.dropped_s = 0.0  # sound that the runner has pushed and that was dropped unheard

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Queue a frame; after `aclose` it is dropped."""
        if self._is_closed:
            await AudioOutput.capture_frame(self, frame)
        else:
            await super().capture_frame(frame)

    def flush(self) -> None:
        """End the segment that is captured; after `aclose` it is reported as interrupted at once."""
        super().flush()
        if self._is_closed:
            self._report_pending()

    def clear_buffer(self) -> None:
        """Drop all frames; each segment that had not ended is reported as interrupted."""
        if self._capturing:
            self.flush()
        self._generation += 1
        self._is_inside = False
        while not self._data_ch.empty():
            self._data_ch.recv_nowait()
        if self._is_reported.is_set():
            self._report_pending()
            return
        self._unseen = self._pending_playback_count - 1
        if not self._is_clearing:  # the runner clears in a task, which must not meet the next segment
            self._is_clearing = True
            self.emit("clear_buffer")  # type: ignore[arg-type]

    def notify_playback_finished(self, playback_position: float, interrupted: bool) -> None:
        """Report the end of the segment that the runner plays, less the sound that was dropped unheard."""
        dropped_s, self.dropped_s = self.dropped_s, 0.0
        super().notify_playback_finished(max(0.0, playback_position - dropped_s), interrupted)
        self._report_unseen()
        self._is_clearing = False
        self._is_reported.set()

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame | AudioSegmentEnd]:
        return self._segments()

    async def aclose(self) -> None:
        """End the iterator; segments that had not ended are reported as interrupted."""
        if not self._is_closed:
            self._is_closed, self._capturing = True, False
            self._data_ch.close()
            self._report_pending()

    async def _segments(self) -> AsyncIterator[rtc.AudioFrame | AudioSegmentEnd]:
        while True:
            try:
                item = await self._data_ch.recv()
            except ChanClosed:
                return
            generation = self._generation
            if not self._is_inside:
                if isinstance(item, AudioSegmentEnd):  # of a segment that was cleared
                    continue
                await self._is_reported.wait()
                if generation != self._generation:
                    continue
                self._is_reported.clear()
            self._is_inside = not isinstance(item, AudioSegmentEnd)
            yield item

    def _report_unseen(self) -> None:
        unseen, self._unseen = self._unseen, 0
        for _ in range(unseen):
            self.on_playback_finished(playback_position=0.0, interrupted=True)

    def _report_pending(self) -> None:
        self._unseen = self._pending_playback_count
        self._report_unseen()
