"""Keep what is made of each film in a folder, as .npz, so that it is made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from train.data.films import Film

RecordT = TypeVar("RecordT", bound=Any)  # a dataclass of arrays and numbers with a field `split`
Make = Callable[[Film, np.random.Generator], RecordT]


def record_file(film: Film, folder: Path) -> Path:
    """Return the path of a film's record; for an unusable film a .txt beside it says why."""
    return folder / f"{film.stem}.npz"


def load_record(kind: type[RecordT], path: Path) -> RecordT:
    """Read the record of one film. Raises InputError for a damaged file."""
    try:
        with np.load(path) as file:
            record: RecordT = kind(
                **{name: file[name] if file[name].ndim else file[name].item() for name in file.files}
            )
            return record
    except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise InputError(f"'{path}' is damaged ({error}); remove it, it is made again.") from None


def load_records(
    kind: type[RecordT], films: list[Film], folder: Path, prepare: Callable[[], Make[RecordT]], lesson: str
) -> list[RecordT]:
    """Load the records of all usable films; missing ones are made first by what `prepare` returns. lesson: what films
    without a usable face cannot teach.

    Raises InputError where no film is usable, OutputError where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    make, loaded, reasons = None, [], []
    for number, film in enumerate(tqdm(films, desc=folder.name, disable=None)):
        kept = record_file(film, folder)
        useless = kept.with_suffix(".txt")
        if not kept.exists() and not useless.exists():
            make = make or prepare()
            try:
                made = make(film, np.random.default_rng(number))
                write_atomically(kept, lambda file, made=made: np.savez(file, **vars(made)))  # type: ignore[misc]
            except InputError as error:
                write_atomically(useless, lambda file, error=error: file.write(f"{error}\n".encode()))  # type: ignore[misc]
        if useless.exists():
            reasons.append(useless.read_text("utf-8").strip())
            continue
        loaded.append(replace(load_record(kind, kept), split=film.split))
    if not loaded:
        raise InputError(f"None of {len(films)} films can teach {lesson}; '{folder}' says why of each. {reasons[0]}")
    return loaded
