"""Follow the segments (replies) of a live session, for the headers of its frames and the session's end."""

from __future__ import annotations

from collections.abc import Iterable

from kdtalker.apps.live.wire import FrameHeader
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import Activity, LiveFrame, Played


class SegmentTracker:
    """Track which segments are still to be played, and the position in the one that is."""

    def __init__(self, rate_hz: int) -> None:
        self._frame_samples = rate_hz // FRAME_RATE_HZ
        self._open: set[int] = set()
        self._segment, self._position = -1, 0  # of the last speech

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
        is_speech = frame.activity is Activity.SPEECH and frame.segment is not None
        if is_speech and frame.segment != self._segment:
            self._segment, self._position = frame.segment or 0, 0
        header = FrameHeader(
            frame.activity.value, frame.picture_state.value, frame.index, frame.index * self._frame_samples,
            self._position if is_speech else 0, self._segment if is_speech else -1, frame.generation,
        )  # fmt: skip
        self._position += self._frame_samples * is_speech
        return header


def count_sent(played: Played, dropped: Iterable[FrameHeader]) -> Played:
    """Correct what was played of an interrupted segment by the frames that were taken but not sent."""
    unsent = [header.position for header in dropped if header.segment == played.segment]
    return Played(played.segment, min([played.samples, *unsent]), played.interrupted or bool(unsent))
