"""Run the rows of a batch on workers and collect how they ended."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from kdtalker.apps.batch.ledger import Entry, find_made, lock_output, write_entry
from kdtalker.apps.batch.maker import Outcome
from kdtalker.apps.batch.rows import FilmRow
from kdtalker.apps.batch.schedule import Schedule
from kdtalker.apps.batch.workers import Message, Workers
from kdtalker.apps.cli import explain
from kdtalker.core.errors import KDTalkerError

POLL_S = 0.5  # between two looks at rows that another batch is making


@dataclass
class Results:
    """Collect how rows ended, by their numbers: films made now, films that were there, sentences of those that failed;
    notes on films."""

    made: dict[int, Entry] = field(default_factory=dict)
    skipped: dict[int, Entry] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    notes: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class _Making:
    """Hold a row that a worker makes, with its lock, and the frames that have been told of."""

    row: FilmRow
    lock: ExitStack
    frames: int = 0


class Runner:
    """Hand rows to workers until all have ended."""

    def __init__(self, rows: Sequence[FilmRow], workers: Workers, results: Results) -> None:
        self._schedule, self._workers, self._results = Schedule(rows), workers, results
        self._making: dict[int, _Making] = {}

    def run(self) -> Generator[FilmRow, None, None]:
        """Make the rows; yields the row of each frame, as long as was estimated, that is made or left out."""
        try:
            while self._schedule or self._making:
                yield from self._hand_out()
                for event in self._workers.wait(POLL_S):
                    yield from self._receive(event.worker, event.message)
        finally:
            self._workers.close()
            for making in self._making.values():
                making.lock.close()

    def _hand_out(self) -> Iterator[FilmRow]:
        """Hand rows to the workers that have none."""
        for worker in range(self._workers.count):
            others: list[FilmRow] = []  # rows that another batch is making, which wait
            while worker not in self._making and (row := self._schedule.take(worker)):
                try:
                    yield from self._hand(worker, row)
                except TimeoutError:
                    others.append(row)
            for row in others:
                self._schedule.put_back(row)

    def _hand(self, worker: int, row: FilmRow) -> Iterator[FilmRow]:
        """Lock a row and hand it to a worker; one that another batch has made meanwhile, or that cannot be locked, is
        left out. Raises TimeoutError where another one is making it."""
        lock = ExitStack()
        try:
            lock.enter_context(lock_output(row.job.output))
        except TimeoutError:
            raise
        except OSError as error:
            self._results.failed[row.number] = explain(error)
            yield from [row] * row.frames
            return
        made = find_made(row.job.output, row.job.save_motion, row.key)
        if made is None:
            self._making[worker] = _Making(row, lock)
            self._workers.hand(worker, row)
            return
        lock.close()
        self._results.skipped[row.number] = made
        yield from [row] * row.frames

    def _receive(self, worker: int, message: Message) -> Iterator[FilmRow]:
        making = self._making.get(worker)
        if isinstance(message, str):
            self._schedule.release(worker)
        if making is None:  # it ended while it had nothing to do
            return
        row = making.row
        if isinstance(message, float):
            frames = max(making.frames, int(message * row.frames))
        else:
            frames = row.frames
            self._finish(row, message)
            making.lock.close()
            del self._making[worker]
        yield from [row] * (frames - making.frames)
        making.frames = frames

    def _finish(self, row: FilmRow, message: Outcome | str) -> None:
        """Record how a row ended."""
        if isinstance(message, str):  # maybe after the film was whole
            made = find_made(row.job.output, row.job.save_motion, row.key)
            entry = made or Entry(row.key, row.job.output.name, error=message)
        else:
            entry = message.entry
            self._results.notes[row.number] = message.notes
        if entry.error is None:
            self._results.made[row.number] = entry
            return
        self._results.failed[row.number] = entry.error
        with suppress(KDTalkerError):  # the error is reported all the same
            write_entry(row.job.output, entry)
