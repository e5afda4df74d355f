"""Prefetch in background threads, in order: what comes out is the same whatever their number."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from threading import BoundedSemaphore, Condition, Thread, get_ident
from typing import Generic, TypeVar

MOST_USEFUL = 4  # a film has four stages: motion, warp, parts, encoding

ItemT = TypeVar("ItemT")


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Budget:
    """Hold the number of threads that may work on films, and a slot for each background thread among them."""

    threads = 1
    slots: BoundedSemaphore | None = None


def set_threads(count: int) -> None:
    """Set the number of threads of this process that may work on films; with 1 nothing is prefetched."""
    _Budget.threads = count
    _Budget.slots = BoundedSemaphore(count - 1) if count > 1 else None


set_threads(MOST_USEFUL if count_cores() > 1 else 1)


def get_threads() -> int:
    """Return the number of threads that may work on films: by default 4, on a single core 1."""
    return _Budget.threads


def _start(function: Callable[[], None], *, daemon: bool = False) -> Thread | None:
    """Start a background thread; None where all slots are taken."""
    slots = _Budget.slots
    if slots is None or not slots.acquire(blocking=False):
        return None

    def run() -> None:
        try:
            function()
        finally:
            slots.release()

    thread = Thread(target=run, daemon=daemon)
    thread.start()
    return thread


class Future(Generic[ItemT]):
    """Call a function in a background thread, or where no thread is free when the result is asked for."""

    def __init__(self, function: Callable[[], ItemT]) -> None:
        """Start it."""
        self._function = function
        self._results: list[ItemT] = []
        self._error: BaseException | None = None
        self._thread = _start(self._call)

    def _call(self) -> None:
        try:
            self._results.append(self._function())
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
        return self._results.pop()


class Prefetch(Iterator[ItemT]):
    """Iterate in a background thread, or where no thread is free as items are taken. An error is raised in its turn.
    The thread ends, after the item that it is making, where this is closed or no longer used."""

    def __init__(self, items: Iterator[ItemT], count: int) -> None:
        """Start, and stay up to `count` items ahead of who takes them."""
        self._buffer = _BoundedBuffer(items, count)
        has_thread = _start(self._buffer.fill, daemon=True) is not None
        self._items = self._buffer if has_thread else items

    def __next__(self) -> ItemT:
        return next(self._items)

    def __enter__(self) -> Prefetch[ItemT]:
        return self

    def __exit__(self, *_: object) -> None:
        """Make no more items, and wait until the thread has ended."""
        self._buffer.stop()
        if self._items is self._buffer:
            self._buffer.wait()
        elif isinstance(self._items, Generator):
            self._items.close()

    def __del__(self) -> None:
        self._buffer.stop()


class _BoundedBuffer(Iterator[ItemT]):
    """Hold items between the thread that makes them and the one that takes them."""

    def __init__(self, items: Iterator[ItemT], count: int) -> None:
        self._source, self._count = items, count
        self._items: deque[ItemT] = deque()
        self._error: BaseException | None = None
        self._has_ended = self._is_stopped = False
        self._changed = Condition()
        self._producer: int | None = None

    def fill(self) -> None:
        """Make items until they end, there is an error, or nobody wants more."""
        self._producer = get_ident()
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
            self._items.append(item)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._items) < self._count or self._is_stopped)
            return not self._is_stopped

    def __next__(self) -> ItemT:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._has_ended)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
        error, self._error = self._error, None
        raise StopIteration if error is None else error

    def stop(self) -> None:
        """Make no more items than the one that is being made."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until the thread has ended; not in that thread itself, where a reader may be garbage collected, nor
        while the interpreter exits, which has stopped it."""
        if get_ident() == self._producer or sys.is_finalizing():
            return
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended)
