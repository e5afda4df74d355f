"""Work ahead in threads, in order: what comes out is the same whatever their number."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

MOST_USEFUL = 4  # a film has four stages: motion, warp, parts, encoding

ItemT = TypeVar("ItemT")


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Limit:
    """Hold the number of threads of this process that may work on films."""

    threads = min(MOST_USEFUL, _count_cores())


def set_threads(count: int) -> None:
    """Set how many threads of this process may work on films, from 1: then nothing is done ahead."""
    _Limit.threads = count


def get_threads() -> int:
    """Return the number of threads that may work on films: by default the cores of this process, 4 at most."""
    return _Limit.threads


class Ahead(Generic[ItemT]):
    """Call a function in a thread of its own from now on, or when its result is asked for where there is one thread."""

    def __init__(self, function: Callable[[], ItemT]) -> None:
        """Start it."""
        self._function = function
        self._made: list[ItemT] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._call) if _Limit.threads > 1 else None
        if self._thread is not None:
            self._thread.start()

    def _call(self) -> None:
        try:
            self._made.append(self._function())
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    def result(self) -> ItemT:
        """Wait for the result, to be asked for once. Raises what the function raised."""
        if self._thread is None:
            self._call()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made.pop()


class RunAhead(Iterator[ItemT]):
    """Iterate in a thread of its own from now on, or as items are taken where there is one thread. An error is raised
    in its turn. The thread ends, after the item that it is making, where this is closed or no longer used."""

    def __init__(self, items: Iterator[ItemT], count: int) -> None:
        """Start, and stay up to `count` items ahead of who takes them."""
        self._belt = _Belt(items, count)
        self._items = iter(self._belt) if _Limit.threads > 1 else items
        if _Limit.threads > 1:
            Thread(target=self._belt.fill, daemon=True).start()

    def __next__(self) -> ItemT:
        return next(self._items)

    def __enter__(self) -> RunAhead[ItemT]:
        return self

    def __exit__(self, *_: object) -> None:
        """Make no more items, and wait until the thread has ended."""
        self._belt.stop()
        if self._items is self._belt:
            self._belt.wait()

    def __del__(self) -> None:
        self._belt.stop()


class _Belt(Iterator[ItemT]):
    """Hold the items that are made and not yet taken."""

    def __init__(self, items: Iterator[ItemT], count: int) -> None:
        self._source, self._count = items, count
        self._made: deque[ItemT] = deque()
        self._error: BaseException | None = None
        self._has_ended = self._is_stopped = False
        self._changed = Condition()

    def fill(self) -> None:
        """Make items until they end, there is an error, or nobody wants more."""
        try:
            for item in self._source:
                if not self._put(item):
                    break
            if isinstance(self._source, Generator):
                self._source.close()
        except BaseException as error:  # raised where the item would be taken
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _put(self, item: ItemT) -> bool:
        """Put an item down and wait until another is wanted; returns whether one is."""
        with self._changed:
            self._made.append(item)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._made) < self._count or self._is_stopped)
            return not self._is_stopped

    def __next__(self) -> ItemT:
        with self._changed:
            self._changed.wait_for(lambda: self._made or self._has_ended)
            if self._made:
                self._changed.notify_all()
                return self._made.popleft()
        error, self._error = self._error, None
        raise StopIteration if error is None else error

    def stop(self) -> None:
        """Make no more items than the one that is being made."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until the thread has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended)
