"""Make films one after another, in a worker: engine and portrait of the last one are kept for the next."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kdtalker.apps.batch.ledger import Entry, write_entry
from kdtalker.apps.batch.rows import FilmRow
from kdtalker.apps.cli import DEBUG_VARIABLE, explain
from kdtalker.apps.film_command import encode_portrait, find_framing, read_driving, read_portrait, spoken, write_film
from kdtalker.apps.job import Job
from kdtalker.apps.progress import Progress
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.core.threads import set_threads
from kdtalker.weights.files import sha256_of

if TYPE_CHECKING:
    from kdtalker.core.protocols import EncodedPortrait
    from kdtalker.pipeline import TalkingPortraitPipeline

REPORT_EVERY_S = 0.5

Load = Callable[[Job], "TalkingPortraitPipeline[Any]"]
Report = Callable[[float], object]  # is told the share of a film that is made, 0..1
KeptT = TypeVar("KeptT")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Outcome:
    """Hold the end of a row: its entry, and the notes that its film logged."""

    entry: Entry
    notes: tuple[str, ...] = ()


class _Kept:
    """Keep the last value that was made, under a key."""

    def __init__(self) -> None:
        self._key: object = None
        self._value: Any = None

    def get(self, key: object, make: Callable[[], KeptT]) -> KeptT:
        if key != self._key:
            self._key = self._value = None  # room for the next one
            self._value = make()
            self._key = key
        value: KeptT = self._value
        return value


class _ShareProgress(Progress):
    """Report the share of the frames that has passed, every now and then."""

    def __init__(self, report: Report) -> None:
        super().__init__(quiet=True)
        self._report = report

    def count(self, frames: Iterable[ItemT], total: int) -> Iterator[ItemT]:
        told_at = time.monotonic()
        for done, frame in enumerate(frames, 1):
            yield frame
            if time.monotonic() - told_at >= REPORT_EVERY_S:
                told_at = time.monotonic()
                self._report(min(1.0, done / max(1, total)))


def _report_nothing(_: float) -> None:
    pass


class FilmMaker:
    """Make the films of rows; an error ends a row, never the maker."""

    def __init__(self, load: Load, threads: int) -> None:
        set_threads(threads)
        self._load = load
        self._forget()

    def _forget(self) -> None:
        self._engine, self._portrait = _Kept(), _Kept()

    def make(self, row: FilmRow, report: Report = _report_nothing) -> Outcome:
        """Make the film of a row and its entry in the ledger. Returns an entry with the error where that fails."""
        began = time.monotonic()
        with _collect_notes() as notes:
            try:
                entry = self._make(row, report, began)
            except Exception as error:
                entry = Entry(row.key, row.job.output.name, seconds=time.monotonic() - began, error=explain(error))
                if os.environ.get(DEBUG_VARIABLE) == "1":
                    notes.append("".join(traceback.format_exception(error)))
                if isinstance(error, MemoryError):
                    self._forget()
        return Outcome(entry, tuple(notes))

    def _make(self, row: FilmRow, report: Report, began: float) -> Entry:
        progress, entries = _ShareProgress(report), []

        def record(film: Path, frames: int) -> None:
            entry = Entry(
                row.key, row.job.output.name,
                film_s=frames / FRAME_RATE_HZ, seconds=time.monotonic() - began,
                bytes=film.stat().st_size, sha256=sha256_of(film),
            )  # fmt: skip
            write_entry(row.job.output, entry)
            entries.append(entry)

        with spoken(row.job, progress) as job:
            driving = read_driving(job)
            pipeline = self._engine.get(row.engine, partial(self._load, job))
            framing = find_framing(job, driving)
            portrait = self._portrait.get((row.portrait, framing), partial(_encode, pipeline, job, framing))
            write_film(pipeline, portrait, driving, job, progress, is_whole=record)
        return entries[-1]


def _encode(pipeline: TalkingPortraitPipeline[Any], job: Job, framing: str) -> EncodedPortrait[Any]:
    return encode_portrait(pipeline, read_portrait(job), job, framing)


class _NoteCollector(logging.Handler):
    """Collect the warnings that the package logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.notes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(record.getMessage())


@contextmanager
def _collect_notes() -> Iterator[list[str]]:
    """Collect warnings of the package within the block."""
    logger, handler = logging.getLogger("kdtalker"), _NoteCollector()
    logger.addHandler(handler)
    try:
        yield handler.notes
    finally:
        logger.removeHandler(handler)
