"""Follow where each segment of a live session stands, for the headers of its frames and the end of the session."""

from __future__ import annotations

from collections.abc import Iterable

from kdtalker.apps.live.wire import FrameHeader
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import Activity, LiveFrame, Played


class Timeline:
    """Count samples: pushed since the last segment ended, and played of the present one."""

    def __init__(self, rate_hz: int) -> None:
        self._samples = rate_hz // FRAME_RATE_HZ
        self._pushed = self._waiting = 0
        self._segment, self._position = -1, 0

    @property
    def is_waiting(self) -> bool:
        """Tell whether segments that were ended by the client are still to be played."""
        return self._waiting > 0

    def push(self, samples: int) -> None:
        """Count samples of the segment that is being received."""
        self._pushed += samples

    def flush(self) -> None:
        """End the segment that is being received; without sound there is none."""
        self._waiting += self._pushed > 0
        self._pushed = 0

    def end(self, played: Played) -> None:
        """Count a segment as played to its end."""
        self._waiting = max(0, self._waiting - 1)

    def interrupt(self, played: Played, dropped: Iterable[FrameHeader]) -> int:
        """Forget what was waiting. dropped: frames that were taken but not sent. Returns how many samples of the
        segment were sent."""
        self._pushed = self._waiting = 0
        unsent = [header.position for header in dropped if header.segment == played.segment]
        return min([played.samples, *unsent])

    def header(self, frame: LiveFrame) -> FrameHeader:
        """Make the header of the next frame; sizes are filled in when it is packed."""
        segment = -1 if frame.segment is None else frame.segment
        if segment != self._segment:
            self._segment, self._position = segment, 0
        position = self._position
        if frame.activity is Activity.SPEECH:
            self._position += self._samples
        return FrameHeader(
            frame.activity.name.lower(), frame.picture_state.name.lower(), frame.index, frame.index * self._samples,
            position, segment, frame.generation, 0, 0,
        )  # fmt: skip
