"""Read a manifest, a table with a film in each row, as arguments of the film command."""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kdtalker.apps.arguments import film_parser
from kdtalker.core.errors import InputError, did_you_mean, quote
from kdtalker.core.files import check_file

PER_RUN = {"help", "version", "voices", "threads", "quiet"}  # options of the film command that are no columns
OUTPUTS = {"output", "save-motion"}  # columns of files that are written
NAME_CHARACTERS = 40  # of the text that names a film

_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0"}

Cells = dict[str, Any]  # values by the long name of the option, empty ones left out


def read_manifest(path: Path, folder: Path) -> list[list[str]]:
    """Read the rows of a .csv, .jsonl or .parquet file, each as the arguments of the film command.

    Files that are read are relative to the manifest, those that are written to `folder`. A film without a name gets one
    of its portrait and its sound or text. Raises InputError for a table that cannot be used as a whole: damaged,
    without rows, with a column that is no option; not for what a row asks for.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(f"The manifest '{path}' does not end in {', '.join(readers)}; name its format so.")
    check_file(path, "a manifest, a table with a film in each row")
    columns = {name: action for name, action in film_parser().long_options().items() if name not in PER_RUN}
    rows = [_check_columns(cells, number, path, columns) for number, cells in enumerate(read(path), 1)]
    if not rows:
        raise InputError(f"The manifest '{path}' has no rows, wanted at least one.")
    return [_arguments(cells, columns, path.absolute().parent, folder.absolute()) for cells in rows]


def _read_csv(path: Path) -> Iterator[Cells]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            for name, count in Counter(map(_column, names)).items():
                if count > 1:
                    raise InputError(f"The manifest '{path}' has {count} columns '{name}', wanted one.")
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise InputError(
                        f"Line {reader.line_num} of '{path}' has {len(cells)} cells, the first line names {len(names)} "
                        "columns; put text with commas in quotes."
                    )
                if cells:
                    yield dict(zip(names, cells, strict=True))
    except UnicodeDecodeError:
        raise InputError(f"The manifest '{path}' is not UTF-8; save it so.") from None
    except csv.Error as error:
        raise InputError(f"The manifest '{path}' is not a table in CSV ({error}).") from None


def _read_jsonl(path: Path) -> Iterator[Cells]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise InputError(f"Line {number} of '{path}' is {quote(row)}, wanted an object: columns by name.")
                if row:
                    yield row
    except UnicodeDecodeError:
        raise InputError(f"The manifest '{path}' is not UTF-8; save it so.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"Line {number} of '{path}' is not JSON ({error}), wanted an object in each line.") from None


def _read_parquet(path: Path) -> Iterator[Cells]:
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ImportError:
        raise InputError(
            f"Reading '{path}' needs pyarrow: pip install pyarrow, or save the manifest as .csv or .jsonl."
        ) from None
    try:
        rows: list[Cells] = read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"The manifest '{path}' is not a table in Parquet ({error}).") from None
    yield from rows


def _column(name: str) -> str:
    """Name the column as the option is called: pose_from is pose-from."""
    return name.strip().replace("_", "-")


def _check_columns(cells: Cells, number: int, path: Path, columns: Iterable[str]) -> Cells:
    """Check that each column is an option and each cell a single value; leave out cells that are empty."""
    named: Cells = {}
    for name, value in cells.items():
        column = _column(name)
        if column not in columns:
            raise InputError(
                f"The manifest '{path}' has a column {quote(name)}, which is no option of a film; `kdtalker --help` "
                f"lists them.{did_you_mean(column, columns)}"
            )
        if column in named:
            raise InputError(f"Row {number} of '{path}' has '{column}' twice, wanted one.")
        if not isinstance(value, str | int | float | None):
            raise InputError(f"Row {number} of '{path}' has {quote(value)} as '{column}', wanted a text or a number.")
        named[column] = value
    return {column: value for column, value in named.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    """Tell whether a cell is empty; pandas writes NaN for that."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _arguments(cells: Cells, columns: dict[str, argparse.Action], inputs: Path, outputs: Path) -> list[str]:
    """Write a row as arguments, which `parse` of the film command checks."""
    cells = {"output": _default_name(cells), **cells}
    arguments = []
    for name, value in cells.items():
        text = str(value)
        if columns[name].nargs == 0 and text.lower() in _TRUE | _FALSE:
            arguments += [f"--{name}"] * (text.lower() in _TRUE)
            continue
        if _is_path(columns[name], text):
            text = str((outputs if name in OUTPUTS else inputs) / text)
        arguments.append(f"--{name}={text}")
    return arguments


def _is_path(action: argparse.Action, text: str) -> bool:
    """Tell whether the command line would take the value for a path; --background takes colours too."""
    if not callable(action.type):
        return False
    try:
        return isinstance(action.type(text), Path)
    except (argparse.ArgumentTypeError, ValueError):
        return False


def _default_name(cells: Cells) -> str:
    """Name a film after its portrait and what moves it."""
    moved_by = next((cells[name] for name in ("audio", "driving", "motion") if name in cells), None)
    words = re.sub(r"\W+", "-", str(cells.get("text", "")).lower())[:NAME_CHARACTERS].strip("-")
    parts = [Path(str(cells.get("image", ""))).stem, words if moved_by is None else Path(str(moved_by)).stem]
    is_transparent = str(cells.get("alpha", "")).lower() in _TRUE
    return "-".join(filter(None, parts)) + (".mov" if is_transparent else ".mp4")
