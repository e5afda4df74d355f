"""Run `kdtalker batch`: films from a table, in several processes or on a Ray cluster, resumable."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kdtalker.apps.arguments import Parser
from kdtalker.apps.batch.ledger import find_made, remove_stale_lock
from kdtalker.apps.batch.maker import Load
from kdtalker.apps.batch.manifest import read_manifest
from kdtalker.apps.batch.ray_workers import HERE, RayWorkers
from kdtalker.apps.batch.rows import FilmRow, check_outputs, read_row
from kdtalker.apps.batch.runner import Results, Runner
from kdtalker.apps.batch.workers import LocalWorkers, Workers
from kdtalker.apps.cli import explain
from kdtalker.apps.film_command import load_engine
from kdtalker.apps.progress import Progress
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import is_folder
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.core.threads import count_cores

CORE_S, START_S = 0.46, 2.0  # processor time of a second of film of 512 px, and start-up, see docs/performance.md

_log = logging.getLogger("kdtalker")


def run(arguments: Sequence[str], load: Load | None = None) -> str:
    """Run `kdtalker batch` with these arguments; return a line that sums it up.

    load: loads the engine of a job (default: film_command.load_engine); a function that workers can import.
    Raises InputError for a manifest that cannot be used, OutputError at the end where rows failed.
    """
    asked = _parser().parse_args(arguments)
    if asked.workers is not None and asked.workers < 1:
        raise InputError(f"--workers is {asked.workers}, wanted a whole number from 1.")
    folder = asked.out or asked.manifest.parent
    if not is_folder(folder):
        raise InputError(f"There is no folder '{folder}' to write films into; make it first.")
    progress, results = Progress(quiet=asked.quiet), Results()
    progress.stage("reading the manifest and its files")
    waiting = _check_rows(read_manifest(asked.manifest, folder), results)
    workers = min(asked.workers or count_cores(), max(1, len(waiting)))
    plan = _describe_plan(waiting, results, workers)
    if asked.dry_run:
        return _finish(results, plan)
    progress.stage(plan)
    began = time.monotonic()
    try:
        if waiting:
            pool = _open_workers(asked, workers, load or load_engine)
            with closing(Runner(waiting, pool, results).run()) as frames:
                for _ in progress.count(frames, sum(row.frames for row in waiting)):
                    pass
    except KeyboardInterrupt as error:
        _report(results)
        kept = f"interrupted, {_films(len(results.made))} made and kept; run the same command again for the others."
        error.args = (kept,)
        raise
    return _finish(results, _describe_results(results, time.monotonic() - began))


def _parser() -> Parser:
    parser = Parser(
        prog="kdtalker batch",
        description="Make the films of a table. What is made already is left out, what failed is tried again.",
        epilog="The table's columns are the options of `kdtalker --help` without their dashes, of which 'image' and "
        "'audio' or 'text' are the usual ones; see docs/batch.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="the table, a film in each row: .csv, .jsonl or .parquet")
    add("--out", type=Path, metavar="FOLDER", help="the folder of the films (default: that of the table)")
    add("--workers", type=int, metavar="N",
        help="processes, or actors of Ray, that make films at the same time (default: one for each core)")  # fmt: skip
    add("--ray", nargs="?", const=HERE, metavar="HOST:PORT",
        help="use the Ray cluster of this head node, which sees the same folders, or start one here")  # fmt: skip
    add("--dry-run", action="store_true", help="check all rows and tell what is to be made and how long that takes")
    add("--quiet", action="store_true", help="show no progress, only errors and the last line")
    return parser


def _check_rows(manifest: Sequence[Sequence[str]], results: Results) -> list[FilmRow]:
    """Check all rows; return those that are to be made."""
    rows = []
    for number, arguments in enumerate(manifest, 1):
        try:
            rows.append(read_row(number, arguments))
        except Exception as error:
            results.failed[number] = explain(error)
    check_outputs(rows)
    for row in rows:
        entry = find_made(row.job.output, row.job.save_motion, row.key)
        if entry is not None:
            results.skipped[row.number] = entry
            remove_stale_lock(row.job.output)
    return [row for row in rows if row.number not in results.skipped]


def _open_workers(asked: Namespace, count: int, load: Load) -> Workers:
    return LocalWorkers(count, load) if asked.ray is None else RayWorkers(asked.ray, asked.workers, load)


def _describe_plan(waiting: Sequence[FilmRow], results: Results, workers: int) -> str:
    """Describe what is to be made and how long that takes."""
    film_s = sum(row.frames for row in waiting) / FRAME_RATE_HZ
    text = (
        f"{_films(len(waiting))} to make, {film_s:.1f} s; {len(results.skipped)} made before; {len(results.failed)} of "
        f"{len(waiting) + len(results.skipped) + len(results.failed)} rows cannot be made."
    )
    if not waiting:
        return text
    worked_s = sum(entry.seconds for entry in results.skipped.values())
    if worked_s > 0:
        took_s = film_s / workers * worked_s / sum(entry.film_s for entry in results.skipped.values())
        source = "as fast as those made before"
    else:
        took_s = START_S + film_s / min(workers, count_cores()) * CORE_S
        source = f"at {CORE_S} s of processor time a second of film of 512 px (docs/performance.md; not measured here)"
    return f"{text} That takes about {_duration(took_s)} with {workers} worker{'s' * (workers > 1)}, {source}."


def _describe_results(results: Results, took_s: float) -> str:
    film_s = sum(entry.film_s for entry in results.made.values())
    speed = f", {film_s:.1f} s of film in {took_s:.1f} s ({film_s / took_s:.2f} x real time)" if results.made else ""
    again = ", which the same command tries again" if results.failed else ""
    skipped, failed = len(results.skipped), len(results.failed)
    return f"{_films(len(results.made))} made{speed}; {skipped} made before; {failed} failed{again}."


def _finish(results: Results, text: str) -> str:
    """Report how rows ended; return the text. Raises OutputError with it where one failed."""
    _report(results)
    if results.failed:
        raise OutputError(text)
    return text


def _report(results: Results) -> None:
    """Report the notes on films and the rows that failed."""
    for number, notes in sorted(results.notes.items()):
        for note in notes:
            _log.warning("row %d: %s", number, note)
    for number, sentence in sorted(results.failed.items()):
        _log.warning("row %d failed: %s", number, sentence)


def _films(count: int) -> str:
    return f"{count} film{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
