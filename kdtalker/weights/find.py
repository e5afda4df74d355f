"""Find weight files on this machine and report missing ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from logging import getLogger
from pathlib import Path

from kdtalker.core.errors import InputError
from kdtalker.weights.files import describe_search_path, find_in, hash_mismatch, integrity_error, search_path
from kdtalker.weights.spec import Weight, fetch_command
from kdtalker.weights.table import LIVEPORTRAIT, find_row

PACKAGE = Path(__file__).parent.parent  # paths of bundled weights are relative to it


def find(name: str, folder: Path | None = None) -> Path:
    """Find a weight file by name and verify it: size and sha256 of a bundled file must match, a published file with
    another sha256 than expected is used with a warning.

    folder: searched first for a published file, which may also lie under its repository's path or be a `.safetensors`.
    Raises InputError where the file is missing or cannot be read, or a bundled one is damaged.
    """
    weight = find_row(name)
    path = locate(weight, folder)
    if path is None:
        raise InputError(_missing_message([weight], folder))
    wrong = integrity_error(weight, path)
    if wrong:
        raise InputError(f"The weights '{path}' {wrong}: {weight.repair_hint(folder)}.")
    differs = hash_mismatch(weight, path) if weight.published else None
    if differs:
        warn_once(f"'{path}' is used, though it is another file than expected: {differs}.")
    return path


@cache
def warn_once(message: str) -> None:
    """Log a warning, once per process for the same message."""
    getLogger("kdtalker").warning(message)


def require(names: Iterable[str], folder: Path | None = None) -> None:
    """Check that published files are on the search path. Raises InputError that names all missing ones."""
    absent = find_missing(names, folder)
    if absent:
        raise InputError(_missing_message([find_row(name) for name in absent], folder))


def _missing_message(weights: Sequence[Weight], folder: Path | None) -> str:
    files = ", ".join(f"'{weight.name}' ({weight.purpose}; licence: {weight.licence})" for weight in weights)
    they = "them" if len(weights) > 1 else "it"
    return f"There is no {files} in {describe_search_path(folder)}; `{fetch_command(weights, folder)}` fetches {they}."


def locate(weight: Weight, folder: Path | None = None) -> Path | None:
    """Locate a weight file without verifying it; None where a published file is not on the search path."""
    return find_in(weight, search_path(folder)) if weight.published else PACKAGE / weight.file


def find_missing(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """List the names of published files that are not on the search path."""
    return [name for name in names if locate(find_row(name), folder) is None]


def describe_missing_weights() -> str:
    """Describe the missing files of `--engine liveportrait` in a sentence; empty where none is missing."""
    names = find_missing(LIVEPORTRAIT)
    if not names:
        return ""
    return (
        f"{len(names)} of the {len(LIVEPORTRAIT)} files of the published engine are not here; "
        f"`{fetch_command([find_row(name) for name in names])}` fetches them."
    )
