"""Workers of a batch: the protocol, and processes on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Protocol

from kdtalker.apps.batch.maker import FilmMaker, Load, Outcome
from kdtalker.apps.batch.rows import FilmRow
from kdtalker.core.allocator import share_one_arena
from kdtalker.core.signals import GRACE_S, deferred, interruptible
from kdtalker.core.threads import MOST_USEFUL, count_cores

Message = float | Outcome | str  # the share of the film that is made; how the row ended; why the worker ended


@dataclass(frozen=True)
class Event:
    """Hold a message of a worker."""

    worker: int
    message: Message


class Workers(Protocol):
    """Make rows, one at a time in each of `count` workers, numbered from 0."""

    count: int

    def hand(self, worker: int, row: FilmRow) -> None:
        """Hand a row to a worker that has none, and start it where it is not running."""
        ...

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Wait for messages, at most so long. A worker that ended its row, or itself, has none."""
        ...

    def close(self) -> None:
        """End all workers; what they are making is not finished."""
        ...


@dataclass(frozen=True)
class _Process:
    """Hold a process and the connection to it."""

    process: SpawnProcess
    connection: Connection


class LocalWorkers:
    """Run workers as processes of their own, so that one that is killed costs one row. They share the cores."""

    def __init__(self, count: int, load: Load) -> None:
        self.count, self._load = count, load
        self._threads = min(MOST_USEFUL, max(1, count_cores() // count))
        self._running: dict[int, _Process] = {}

    def hand(self, worker: int, row: FilmRow) -> None:
        """Hand a row to a worker, see `Workers`."""
        if worker not in self._running:
            with deferred():
                self._running[worker] = self._start()
        with suppress(OSError):  # it has just ended, which `wait` reports
            self._running[worker].connection.send(row)

    def _start(self) -> _Process:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._load, self._threads), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        return _Process(process, ours)

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Wait for messages, see `Workers`."""
        if not self._running:
            time.sleep(timeout_s)
        ready = connection.wait([running.connection for running in self._running.values()], timeout_s)
        workers = [worker for worker, running in self._running.items() if running.connection in ready]
        return [Event(worker, self._receive(worker)) for worker in workers]

    def _receive(self, worker: int) -> Message:
        running = self._running[worker]
        try:
            message: Message = running.connection.recv()
            return message
        except (EOFError, OSError):
            del self._running[worker]
            running.connection.close()
            running.process.join()
            return _describe_end(running.process.exitcode or 0)

    def close(self) -> None:
        """End all workers, see `Workers`."""
        with deferred():
            for running in self._running.values():
                running.process.terminate()
            for running in self._running.values():
                running.process.join(GRACE_S)
                running.process.kill()
                running.process.join()
                running.connection.close()
            self._running.clear()


def _describe_end(exit_code: int) -> str:
    """Describe in a sentence how a worker ended while it made a row."""
    if exit_code >= 0:
        return f"its worker ended with exit code {exit_code}; run the same command again."
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":
        return (
            "its worker was killed (SIGKILL), as systems do where memory runs out; run the same command again, "
            "with fewer --workers if that is why."
        )
    return f"its worker was ended by {name}; run the same command again."


def _work(requests: Connection, load: Load, threads: int) -> None:
    """Run a worker: make the rows that arrive until none can arrive any more, or a signal ends it."""
    with suppress(KeyboardInterrupt, EOFError, OSError), interruptible(ignore_after=True):
        Thread(target=_end_with_parent, daemon=True).start()
        share_one_arena()
        maker = FilmMaker(load, threads)
        while True:
            requests.send(maker.make(requests.recv(), requests.send))


def _end_with_parent() -> None:
    """End this process, by force if need be, when its parent has ended."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
