"""Follow the segments (replies) of a live session, for the headers of its frames and the session's end."""

from __future__ import annotations

from collections.abc import Iterable

from kdtalker.apps.live.wire import FrameHeader
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import LiveFrame, Played


class SegmentTracker:
    """Track which segments are still to be played, and make the headers of frames."""

    def __init__(self, rate_hz: int) -> None:
        self._frame_samples = rate_hz // FRAME_RATE_HZ
        self._open: set[int] = set()

    @property
    def is_waiting(self) -> bool:
        """Tell whether any segment is still to be played to its end."""
        return bool(self._open)

    def open(self, segment: int, samples: int) -> None:
        """Note that sound of a segment was pushed."""
        if samples:
            self._open.add(segment)

    def end(self, played: Played) -> None:
        """Note that a segment has left the session."""
        self._open.discard(played.segment)

    def header(self, frame: LiveFrame) -> FrameHeader:
        """Make the header of the next frame; sizes are filled in when it is packed."""
        return FrameHeader(
            frame.activity.value, frame.picture_state.value, frame.index, frame.index * self._frame_samples,
            frame.position, -1 if frame.segment is None else frame.segment, frame.generation,
        )  # fmt: skip


def count_sent(played: Played, dropped: Iterable[FrameHeader]) -> Played:
    """Correct what was played of an interrupted segment by the frames that were taken but not sent."""
    unsent = [header.position for header in dropped if header.segment == played.segment]
    return Played(played.segment, min([played.samples, *unsent]), played.interrupted or bool(unsent))
