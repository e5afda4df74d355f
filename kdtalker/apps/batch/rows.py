"""Rows of a batch: the job, its key and its length, checked before anything is made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdtalker import __version__
from kdtalker.apps.driving_input import open_driving_input
from kdtalker.apps.job import Job, parse
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLE_RATE_HZ, frame_count
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.media.probe import probe_sound
from kdtalker.media.sound import read_sound
from kdtalker.weights.files import sha256_of
from kdtalker.weights.find import locate
from kdtalker.weights.table import BY_NAME, KOKORO, TABLE

CHARACTERS_A_SECOND = 15  # of a text that is spoken, to estimate how long that takes
NOT_IN_KEY = ("output", "save_motion", "weights", "threads", "quiet")  # fields of a job that do not change a film
OF_ENGINE = ("engine", "device", "precision", "compile", "checkpoint", "personal")  # fields that load_engine reads
OF_PORTRAIT = ("image", "background", "face", "box", "crop", "alpha", "max_side")  # fields that encode_portrait reads


@dataclass(frozen=True)
class FilmRow:
    """Hold a row that can be made. key: sha256 of all that its film depends on; engine, portrait: the same for rows
    that share a loaded engine, or an encoded portrait too; frames: estimated length of the film."""

    number: int
    job: Job
    key: str
    engine: str
    portrait: str
    frames: int


def read_row(number: int, arguments: Sequence[str]) -> FilmRow:
    """Parse and check a row, hash what its film is made of and estimate its length. Raises InputError or OutputError
    where it cannot be made."""
    job = parse(arguments)
    if job.checkpoint is not None:
        check_checkpoint(job.checkpoint, job.engine, job.personal)
    weights = _weights(job)
    engine = _key(_contents(job, OF_ENGINE), weights)
    portrait = _key(_contents(job, OF_PORTRAIT), engine)
    everything = _contents(job, [name for name in vars(job) if name not in NOT_IN_KEY])
    key = _key(everything, weights, __version__, job.output.suffix.lower(), job.save_motion is not None)
    return FilmRow(number, job, key, engine, portrait, _estimate_frames(job))


def check_outputs(rows: Sequence[FilmRow]) -> None:
    """Check that no row writes a file that another one writes or reads. Raises InputError."""
    writers: dict[str, int] = {}
    for row in rows:
        for path in (row.job.output, row.job.save_motion):
            if path is not None and writers.setdefault(os.path.realpath(path), row.number) != row.number:
                first = writers[os.path.realpath(path)]
                raise InputError(
                    f"Rows {first} and {row.number} would both write '{path}'; name their films in a column 'output'."
                )
    for row in rows:
        for name, path in vars(row.job).items():
            writer = writers.get(os.path.realpath(path)) if isinstance(path, Path) else None
            if writer not in (None, row.number) and name not in NOT_IN_KEY:
                raise InputError(f"Row {writer} would write '{path}', which row {row.number} reads; use two manifests.")


def _contents(job: Job, names: Sequence[str]) -> dict[str, Any]:
    """Return fields of a job as JSON: files by their content, so that a renamed one is the same."""
    values = {name: getattr(job, name) for name in names}
    return {name: _hash(value) if isinstance(value, Path) else value for name, value in values.items()}


def _key(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _hash_unchanged(path: Path, changed_ns: int, size: int) -> str:
    return sha256_of(path)


def _hash(path: Path) -> str:
    """Hash a file, once for all rows that read it."""
    status = path.stat()
    return _hash_unchanged(path, status.st_mtime_ns, status.st_size)


def _weights(job: Job) -> dict[str, str | None]:
    """Return the sha256 of the weight files that a job may use, by name: the table's of the bundled ones."""
    names = [weight.name for weight in TABLE if weight.name not in BY_NAME] if job.engine == "liveportrait" else []
    names += KOKORO if job.line is not None else []
    published = {weight.name: locate(weight, job.weights) for weight in TABLE if weight.name in names}
    hashes = {name: _hash(path) for name, path in published.items() if path is not None}
    return {**{weight.name: weight.sha256 for weight in TABLE if not weight.published}, **hashes}


def _estimate_frames(job: Job) -> int:
    """Estimate the length of a film, from headers where they tell it. Raises InputError where what moves the portrait
    cannot be read."""
    if job.motion is not None or job.driving is not None:
        return max(1, open_driving_input(job).frames)
    if job.audio is None:
        assert job.line is not None
        spoken_s: float | None = len(job.line.text) / CHARACTERS_A_SECOND
    else:
        spoken_s = probe_sound(job.audio).declared_s
    if spoken_s is None:
        assert job.audio is not None
        return frame_count(sum(map(len, read_sound(job.audio, job.start, job.duration))))
    heard_s = max(0.0, spoken_s - job.start)
    return max(1, frame_count(round(SAMPLE_RATE_HZ * min(heard_s, job.duration or heard_s))))
