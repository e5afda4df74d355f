"""Find weight files on this machine, and say which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from logging import getLogger
from pathlib import Path

from kdtalker.core.errors import InputError
from kdtalker.weights.files import difference, fault, first_of, folders, told
from kdtalker.weights.spec import Weight, fetching
from kdtalker.weights.table import LIVEPORTRAIT, row

PACKAGE = Path(__file__).parent.parent


def find(name: str, folder: Path | None = None) -> Path:
    """The path of the weight file with that name. Size and sha256 of a file of the package are verified; a published
    file with another sha256 than expected is used with a warning.

    folder: looked in first for a published file. Such a file may also lie under its repository's path, or be a
    `.safetensors`. Raises InputError where the file is missing or cannot be read, or the package is damaged.
    """
    weight = row(name)
    path = locate(weight, folder)
    if path is None:
        raise InputError(_absent([weight], folder))
    wrong = fault(weight, path)
    if wrong:
        raise InputError(f"The weights '{path}' {wrong}: {weight.remedy(folder)}.")
    differs = difference(weight, path) if weight.published else None
    if differs:
        warn_once(f"'{path}' is used, though it is another file than expected: {differs}.")
    return path


@cache
def warn_once(message: str) -> None:
    """Log a warning, the same one once in a process."""
    getLogger("kdtalker").warning(message)


def require(names: Iterable[str], folder: Path | None = None) -> None:
    """Raises InputError that names all of these published files that are in none of the folders."""
    absent = missing(names, folder)
    if absent:
        raise InputError(_absent([row(name) for name in absent], folder))


def _absent(weights: Sequence[Weight], folder: Path | None) -> str:
    files = ", ".join(f"'{weight.name}' ({weight.purpose}; licence: {weight.licence})" for weight in weights)
    they = "them" if len(weights) > 1 else "it"
    return f"There is no {files} in {told(folder)}; `{fetching(weights, folder)}` fetches {they}."


def locate(weight: Weight, folder: Path | None = None) -> Path | None:
    """Where the file is, unverified; None where a published file is in none of the folders."""
    return first_of(weight, folders(folder)) if weight.published else PACKAGE / weight.file


def missing(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """Those of the published files that are in none of the folders."""
    return [name for name in names if locate(row(name), folder) is None]


def published_engine_lacks() -> str:
    """A sentence about the files that `--engine liveportrait` needs and are not here; empty where all are."""
    names = missing(LIVEPORTRAIT)
    if not names:
        return ""
    return (
        f"{len(names)} of the {len(LIVEPORTRAIT)} files of the published engine are not here; "
        f"`{fetching([row(name) for name in names])}` fetches them."
    )
