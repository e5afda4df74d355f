"""When frames are due: the clock of the sound that was handed out."""

from __future__ import annotations

from kdtalker.core.rates import FRAME_RATE_HZ

FRAME_S = 1 / FRAME_RATE_HZ
CATCH_UP = 0.9  # of a frame's time from frame to frame, until the sound that waits to be heard is as long as wanted
LATE_S = 5 * FRAME_S  # a frame that is later than this starts the count anew


class Pacer:
    """Pace frames by the sound that was handed out and not yet heard: it grows to `lead_s` s, so that a late frame
    is not heard as a gap. Times are seconds of any one clock."""

    def __init__(self, lead_s: float = 0.06) -> None:
        self.lead_s = lead_s
        self.next_s: float | None = None  # when the next frame is due; None: at once
        self.heard_s = 0.0  # when all sound that was handed out has been heard

    def advance(self, now_s: float, *, has_sound: bool) -> float:
        """Count a frame that is handed out now, and set `next_s`. Returns when its sound is heard and its picture is to
        be seen."""
        due_s = now_s if self.next_s is None or now_s - self.next_s > LATE_S else self.next_s
        begin_s = max(now_s, self.heard_s)
        if has_sound:
            self.heard_s = begin_s + FRAME_S
            self.next_s = max(due_s + CATCH_UP * FRAME_S, self.heard_s - self.lead_s)
        else:
            self.next_s = due_s + FRAME_S
        return begin_s

    def cut(self) -> None:
        """Forget the sound that was handed out and not yet heard: it was dropped."""
        self.heard_s = 0.0
