"""Films to shards: `python -m train.data FILMS... --out SHARDS [--table CSV] [--workers N]`. Run it again to go on.

FILMS are files or folders. Each film is tracked at 25 fps and cut into stretches where its face is always there and
never jumps; then the lag between mouth and sound is estimated over all stretches together. The table gives split and
speaker; a film without a row counts as its own speaker, for training.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kdtalker.audio import FRAME_RATE_HZ, SAMPLES_PER_FRAME, read_sound
from kdtalker.audio_encoder import WhisperEncoder, encode_all
from kdtalker.errors import InputError
from kdtalker.motion import Array
from kdtalker.tracker import EYE_CONTOURS, LANDMARKS, FaceTracker, mouth_opening
from kdtalker.video import read_film
from train.shards import Shard, load_shards
from train.sync import estimate_lags

SUFFIXES = {".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
LEAST_STRETCH_S, LEAST_EYE_DISTANCE_PX = 1.0, 30.0
LARGEST_STEP, LARGEST_GROWTH = 0.5, 0.15  # in eye distances a frame, and of the eye distance a frame
LEAST_CORRELATION = 0.4  # stretches whose sound explains less of the mouth count as not in sync


@dataclass(frozen=True)
class Film:
    """A film to track and what the table says of it."""

    path: Path
    name: str
    speaker: str
    split: str


@dataclass(frozen=True)
class Drop:
    """Seconds of a film that gave no shard, and why."""

    film: str
    reason: str
    seconds: float


def find_films(places: list[Path], tables: list[Path]) -> list[Film]:
    """All films of the places in order. Raises InputError where there are none."""
    rows: dict[Path, dict[str, str]] = {}
    for table in tables:
        with table.open() as file:
            rows |= {(table.parent / row["file"]).resolve(): row for row in csv.DictReader(file)}
    films = []
    for place in places:
        paths = (
            sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
        )
        for path in paths:
            row = rows.get(path.resolve(), {})
            name = path.relative_to(place.parent if place.is_dir() else path.parent).as_posix()
            films.append(Film(path, name, row.get("speaker", name), row.get("split", "train")))
    if not films:
        raise InputError(f"No films were found in {', '.join(map(str, places))}; wanted {', '.join(sorted(SUFFIXES))}.")
    return films


def track(path: Path) -> Array:
    """(T, 468, 3) landmarks of a film at 25 fps, NaN where there is no face."""
    nothing = np.full((LANDMARKS, 3), np.nan, np.float32)
    return np.stack([face.landmarks if face else nothing for face in FaceTracker().follow_film(read_film(path))])


def sound_of(film: Path) -> Array:
    """The sound of a film, or of the .wav beside it; silence of no length where there is neither."""
    beside = film.with_suffix(".wav")
    try:
        return np.concatenate(list(read_sound(beside if beside.exists() else film)))
    except InputError:
        return np.zeros(0, np.float32)


def stretches(landmarks: Array) -> Iterator[tuple[slice, str]]:
    """Stretches of a film, with an empty reason where they are fit for training and else why they are not."""
    eyes = np.stack([landmarks[:, list(contour), :2].mean(1) for contour in EYE_CONTOURS])
    distance = np.linalg.norm(eyes[0] - eyes[1], axis=-1)
    middle = eyes.mean(0)
    step = np.linalg.norm(np.diff(middle, axis=0), axis=-1) / distance[1:]
    growth = np.abs(np.diff(distance)) / distance[1:]
    is_lost = np.isnan(distance)
    is_cut = np.r_[True, (step > LARGEST_STEP) | (growth > LARGEST_GROWTH) | (is_lost[1:] != is_lost[:-1])]
    starts = [*np.flatnonzero(is_cut), len(landmarks)]
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        stretch = slice(int(start), int(end))
        if is_lost[start]:
            yield stretch, "face lost"
        elif end - start < LEAST_STRETCH_S * FRAME_RATE_HZ:
            yield stretch, "too short between jumps"
        elif np.median(distance[stretch]) < LEAST_EYE_DISTANCE_PX:
            yield stretch, "face too small"
        else:
            yield stretch, ""


def make_shards(film: Film, out: Path) -> list[Drop]:
    """Track one film and write its shards; what was dropped is kept beside them, and says that the film is done."""
    done = out / "films" / f"{film.name.replace('/', '__')}.json"
    if done.exists():
        return [Drop(**drop) for drop in json.loads(done.read_text())]
    drops = []
    try:
        landmarks, sound = track(film.path), sound_of(film.path)
    except (InputError, ValueError) as error:
        drops.append(Drop(film.name, f"cannot be read: {error}", 0.0))
    else:
        for stretch, reason in stretches(landmarks):
            frames = stretch.stop - stretch.start
            if reason:
                drops.append(Drop(film.name, reason, frames / FRAME_RATE_HZ))
                continue
            heard = sound[stretch.start * SAMPLES_PER_FRAME : stretch.stop * SAMPLES_PER_FRAME]
            padded = np.pad(heard, (0, frames * SAMPLES_PER_FRAME - len(heard))).astype(np.float16)
            is_heard = bool(np.abs(heard).max(initial=0) > 0)
            Shard(landmarks[stretch], padded, is_heard, 0, film.speaker, film.split, film.name, stretch.start).save(out)
    done.write_text(json.dumps([vars(drop) for drop in drops]))
    return drops


def synchronise(out: Path) -> list[Drop]:
    """Estimate every shard's lag and write it back; shards that their sound does not explain are marked."""
    encoder = WhisperEncoder.load()
    heard = [shard for shard in load_shards(out) if np.abs(shard.sound).max() > 0]
    cache = out / "features"
    cache.mkdir(exist_ok=True)
    features = []
    for shard in tqdm(heard, desc="audio features", disable=None):
        kept = cache / f"{shard.name}.npy"
        if not kept.exists():
            np.save(kept, encode_all(encoder, shard.sound.astype(np.float32)).astype(np.float16))
        both = np.load(kept).reshape(len(shard.landmarks), 2, 3, -1)
        features.append(both.mean(1)[:, 1:].reshape(len(both), -1))  # layers 3 and 4
    openings = [mouth_opening(shard.landmarks) for shard in heard]
    drops = []
    for shard, sync in zip(heard, estimate_lags(openings, features, [one.speaker for one in heard]), strict=True):
        is_synced = sync.correlation >= LEAST_CORRELATION
        replace(shard, lag_frames=sync.lag_frames, synced=is_synced).save(out)
        if not is_synced:
            drops.append(
                Drop(shard.film, "out of sync (kept for the face model)", len(shard.landmarks) / FRAME_RATE_HZ)
            )
    return drops


def main() -> None:
    parser = argparse.ArgumentParser(description="Track films and cut them into shards.")
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path, action="append", default=[], help="csv with file, speaker, split")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    (options.out / "films").mkdir(parents=True, exist_ok=True)
    films = find_films(options.films, options.table)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        work = pool.map(partial(make_shards, out=options.out), films)
        drops = [drop for part in tqdm(work, total=len(films), disable=None) for drop in part]
    drops += synchronise(options.out)
    (options.out / "report.json").write_text(json.dumps([vars(drop) for drop in drops], indent=1))
    kept = sum(len(shard.landmarks) for shard in load_shards(options.out)) / FRAME_RATE_HZ
    print(f"{kept:.0f} s kept of {len(films)} films")
    for reason in sorted({drop.reason for drop in drops}):
        rows = [drop for drop in drops if drop.reason == reason]
        names = ", ".join(sorted({drop.film for drop in rows}))
        print(f"{reason}: {sum(drop.seconds for drop in rows):.0f} s of {names}")


if __name__ == "__main__":
    main()
