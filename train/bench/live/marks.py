"""Draw the number of its frame into each picture of a live session, so that a receiver knows what it is shown."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import Hello
from kdtalker.core.arrays import Image
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import LiveFrame
from kdtalker.live.session import LiveSession

CELL_PX, COLUMNS, BITS = 16, 8, 16  # browser.js reads the same: white cells are ones, the lowest bit comes first
ROWS = 2 * BITS // COLUMNS  # the lower half is the complement of the upper
CLICK_LEVEL = 0.5  # of full scale; the rest of the sound of clicks stays below a tenth


def draw_number(picture: Image, number: int) -> Image:
    """Return a copy of a picture (H, W, 3) with the lowest 16 bits of a number in its upper left corner."""
    bits = number >> np.arange(BITS) & 1
    cells = np.concatenate([bits, 1 - bits]).reshape(ROWS, COLUMNS).astype(np.uint8)
    marked = picture.copy()
    corner = np.kron(255 * cells, np.ones((CELL_PX, CELL_PX), np.uint8))
    marked[: ROWS * CELL_PX, : COLUMNS * CELL_PX] = corner[..., None]
    return marked


def read_number(picture: Image) -> int | None:
    """Read what `draw_number` drew, None where the cells contradict each other."""
    half = CELL_PX // 2
    cells = picture[half : ROWS * CELL_PX : CELL_PX, half : COLUMNS * CELL_PX : CELL_PX, 1].reshape(-1) > 127
    bits, complement = cells[:BITS], cells[BITS:]
    return int((bits << np.arange(BITS)).sum()) if (bits != complement).all() else None


@dataclass(frozen=True)
class ClickTaken:
    """Report a click in the sound of a session: number of its frame, its place there in s, and the wall-clock time in s
    at which the frame was taken."""

    index: int
    offset_s: float
    taken_s: float


class MarkedSession:
    """Draw into each picture of a session the number of the frame that it was drawn for; one that is shown again, or
    late, has that of an earlier frame."""

    def __init__(self, session: LiveSession, clicks: list[ClickTaken]) -> None:
        """clicks: those in the sound that is taken are added."""
        self.unmarked, self._clicks = session, clicks
        self._picture: Image | None = None
        self._marked: Image

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unmarked, name)

    def take(self) -> LiveFrame:
        """Take a frame and mark it."""
        frame = self.unmarked.take()
        if frame.picture is not self._picture:
            number = frame.index - frame.picture_age
            self._picture, self._marked = frame.picture, draw_number(frame.picture, number)
        loud = np.flatnonzero(np.abs(frame.sound) > CLICK_LEVEL / 2)
        if len(loud):
            offset_s = int(loud[0]) / len(frame.sound) / FRAME_RATE_HZ
            self._clicks.append(ClickTaken(frame.index, offset_s, time.time()))
        return replace(frame, picture=self._marked)


class MarkingService(LiveService):
    """Open sessions whose pictures are marked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clicks: list[ClickTaken] = []  # of all sessions, in their order

    async def open(self, hello: Hello) -> LiveSession:
        """Open a session."""
        return MarkedSession(await super().open(hello), self.clicks)  # type: ignore[return-value]

    async def close(self, session: LiveSession) -> None:
        """Close a session."""
        await super().close(session.unmarked)  # type: ignore[attr-defined]
