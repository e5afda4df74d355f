"""The ledger of a batch: beside each film a file that tells what it was made of, or why it was not made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kdtalker.core.files import write_atomically
from kdtalker.weights.files import sha256_of
from kdtalker.weights.hub import file_lock


@dataclass(frozen=True)
class Entry:
    """Record how a row ended. key: of the row; output: the film's name; film_s: its length; seconds: that it took;
    bytes, sha256: of the film, None where there is none; error: None or a sentence."""

    key: str
    output: str
    film_s: float = 0.0
    seconds: float = 0.0
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = None


def entry_path(output: Path) -> Path:
    """Return the path of a film's entry."""
    return output.with_name(f"{output.name}.batch.json")


def write_entry(output: Path, entry: Entry) -> None:
    """Write the entry of a film atomically. That of a finished film is written before the film takes its name: whatever
    is killed in between, entry and film do not agree and the row is made again."""
    text = json.dumps(asdict(entry), indent=1, ensure_ascii=False)
    write_atomically(entry_path(output), lambda file: file.write(f"{text}\n".encode("utf-8", "replace")))


def read_entry(output: Path) -> Entry | None:
    """Read the entry of a film; None where there is none that can be read."""
    try:
        return Entry(**json.loads(entry_path(output).read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def find_made(output: Path, motion: Path | None, key: str) -> Entry | None:
    """Return the entry of a film that was made with that key and is unchanged, beside its saved motion; else None."""
    entry = read_entry(output)
    if entry is None or entry.error is not None or entry.key != key or (motion and not motion.exists()):
        return None
    try:
        is_unchanged = output.stat().st_size == entry.bytes and sha256_of(output) == entry.sha256
    except OSError:
        return None
    return entry if is_unchanged else None


@contextmanager
def lock_output(output: Path) -> Iterator[None]:
    """Hold the right to make a film. Raises TimeoutError where another batch holds it."""
    with file_lock(_lock_path(output), wait=False):
        yield


def remove_stale_lock(output: Path) -> None:
    """Remove the lock of a batch that was killed."""
    with suppress(OSError):
        if _lock_path(output).exists():
            with lock_output(output):
                pass


def _lock_path(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")
