"""Events of an endless random sequence, such as blinks, by their times."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from threading import Lock
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class EventSchedule(Generic[ValueT]):
    """Keep the events of a stream, (time, value) by rising time, so that the end of a long film costs no more than its
    beginning. May be used by several threads."""

    def __init__(self, events: Iterator[tuple[float, ValueT]]) -> None:
        self._events, self._lock = events, Lock()
        self._times: list[float] = []
        self._values: list[ValueT] = []
        self._has_ended = False

    def between(self, begin: float, end: float) -> list[tuple[float, ValueT]]:
        """Return the last event that is not after `begin`, and those after it that are before `end`."""
        with self._lock:
            while not self._has_ended and (not self._times or self._times[-1] < end):
                following = list(islice(self._events, 1))
                self._has_ended = not following
                self._times.extend(time for time, _ in following)
                self._values.extend(value for _, value in following)
            first = max(0, bisect_right(self._times, begin) - 1)
            last = bisect_left(self._times, end)
            return list(zip(self._times[first:last], self._values[first:last], strict=True))
