"""Report progress on stderr: a bar in a terminal, a line every 10 % or 30 s elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")

LINE_EVERY_S = 30.0  # without a terminal a line is written at least this often
_COLUMNS = 80  # the width of a terminal that does not report it


class Progress:
    """Report the stages and frames of one film on stderr; quiet: report nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._is_terminal = not quiet and sys.stderr.isatty()

    def stage(self, text: str) -> None:
        """Report a stage before the first frame, for example "loading the networks"."""
        if not self._quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def count(self, frames: Iterable[Frame], total: int) -> Iterator[Frame]:
        """Pass frames on and report how many of `total` have passed."""
        if self._quiet:
            yield from frames
        elif self._is_terminal:
            yield from self._bar(frames, total)
        else:
            yield from self._lines(frames, total)

    def _bar(self, frames: Iterable[Frame], total: int) -> Iterator[Frame]:
        from tqdm import tqdm

        columns = shutil.get_terminal_size((_COLUMNS, 24)).columns or _COLUMNS
        with tqdm(total=total, unit="frame", leave=False, file=sys.stderr, ncols=columns, nrows=24) as bar:
            for frame in frames:
                yield frame
                bar.update()

    def _lines(self, frames: Iterable[Frame], total: int) -> Iterator[Frame]:
        began = line_at = time.monotonic()
        tenths = 0
        for done, frame in enumerate(frames, 1):
            yield frame
            now, reached = time.monotonic(), min(10, 10 * done // max(1, total))
            if reached > tenths or now - line_at >= LINE_EVERY_S:
                line_at, tenths = now, reached
                left_s = (now - began) / done * max(0, total - done)
                share = min(100, 100 * done // max(1, total))
                self.stage(f"{share:3}%  {done:,} of {total:,} frames, about {left_s:.0f} s left")
