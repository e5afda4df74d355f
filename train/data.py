"""Films to shards: `python -m train.data FILMS... --out SHARDS [--table CSV] [--workers N]`. Run it again to go on.

FILMS are files or folders. Each film is tracked at 25 fps and cut into stretches where its face is always there and
never jumps; then the lag between mouth and sound is estimated over all stretches together. The table gives split and
speaker; a film without a row counts as its own speaker, for training. SHARDS/report.json tells what was dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from kdtalker.audio import FRAME_RATE_HZ, SAMPLES_PER_FRAME, read_sound
from kdtalker.audio_encoder import WhisperEncoder, encode_all
from kdtalker.errors import InputError, KDTalkerError
from kdtalker.motion import Array
from kdtalker.tracker import EYE_CONTOURS, LANDMARKS, FaceTracker, mouth_opening
from kdtalker.video import read_film
from train.films import Film, find_films
from train.shards import Shard, shard_paths
from train.sync import LARGEST_LAG_FRAMES, Sync, estimate_lags

LEAST_STRETCH_S, LEAST_EYE_DISTANCE_PX = 1.0, 30.0
LARGEST_STEP, LARGEST_GROWTH = 0.5, 0.15  # in eye distances a frame, and of the eye distance a frame
SETTLING_FRAMES = 2  # before and after a jump the tracker may be between two faces
LEAST_CORRELATION = 0.5  # stretches whose sound explains less of the mouth count as not in sync
LARGEST_DRIFT_FRAMES = 1  # and so do those whose halves are not equally late
ENOUGH_TO_SYNC_S = 300.0  # with less the regression knows every take by heart


@dataclass(frozen=True)
class Drop:
    """Seconds of a film that do not serve, why, and where needed what exactly was wrong."""

    film: str
    reason: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """What is kept of a film that has been tracked: by size and time a changed film is known."""

    film: str
    size_bytes: int
    modified_ns: int
    speaker: str
    split: str
    shards: list[str]
    drops: list[Drop]

    @staticmethod
    def load(path: Path) -> Record:
        values = json.loads(path.read_text("utf-8"))
        return Record(**(values | {"drops": [Drop(**drop) for drop in values["drops"]]}))

    def save(self, path: Path) -> None:
        _write(path, json.dumps(asdict(self), indent=1).encode())


def track(path: Path) -> Array:
    """(T, 468, 3) landmarks of a film at 25 fps, NaN where there is no face. Raises InputError as read_film does."""
    nothing = np.full((LANDMARKS, 3), np.nan, np.float32)
    faces = FaceTracker().follow_film(read_film(path))
    frames = [face.landmarks if face else nothing for face in faces]
    if not frames:
        raise InputError(f"'{path}' has no frames, wanted a film.")
    return np.stack(frames)


def sound_of(film: Path) -> Array:
    """The sound of the .wav beside a film, else its own; silence of no length where there is neither."""
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
    is_jump = np.r_[False, (step > LARGEST_STEP) | (growth > LARGEST_GROWTH)]
    is_unsettled = np.convolve(is_jump, np.ones(2 * SETTLING_FRAMES + 1))[SETTLING_FRAMES:-SETTLING_FRAMES] > 0
    is_cut = is_unsettled | np.r_[True, is_lost[1:] != is_lost[:-1]]
    starts = [*np.flatnonzero(is_cut), len(landmarks)]
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        stretch = slice(int(start), int(end))
        if is_lost[start]:
            yield stretch, "face lost"
        elif end - start < LEAST_STRETCH_S * FRAME_RATE_HZ:
            yield stretch, "jumps, or too short between them"
        elif np.median(distance[stretch]) < LEAST_EYE_DISTANCE_PX:
            yield stretch, "face too small"
        else:
            yield stretch, ""


def make_shards(film: Film, out: Path) -> None:
    """Track one film and write its shards, and then the record that says it is done; nothing where it has been done
    already, except what the table now says differently."""
    place, status = out / "films" / f"{film.stem}.json", film.path.stat()
    record = Record(film.name, status.st_size, status.st_mtime_ns, film.speaker, film.split, [], [])
    if place.exists():
        old = Record.load(place)
        if (old.size_bytes, old.modified_ns) == (record.size_bytes, record.modified_ns):
            _rename_speaker(film, old, out)
            return
        for name in old.shards:
            (out / f"{name}.npz").unlink(missing_ok=True)
            (out / "features" / f"{name}.npy").unlink(missing_ok=True)
    try:
        landmarks, sound = track(film.path), sound_of(film.path)
    except (InputError, cv2.error) as error:
        replace(record, drops=[Drop(film.name, "cannot be read", 0.0, str(error))]).save(place)
        return
    for stretch, reason in stretches(landmarks):
        if reason:
            record.drops.append(Drop(film.name, reason, (stretch.stop - stretch.start) / FRAME_RATE_HZ))
            continue
        shard = _shard(film, landmarks, sound, stretch)
        shard.save(out)
        record.shards.append(shard.name)
    record.save(place)


def _shard(film: Film, landmarks: Array, sound: Array, stretch: slice) -> Shard:
    """One stretch with its sound, silent where the sound is shorter than the film; not yet in sync with it."""
    heard = sound[stretch.start * SAMPLES_PER_FRAME : stretch.stop * SAMPLES_PER_FRAME]
    samples = (stretch.stop - stretch.start) * SAMPLES_PER_FRAME
    padded = np.pad(heard, (0, samples - len(heard))).astype(np.float16)
    return Shard(landmarks[stretch], padded, False, 0, film.speaker, film.split, film.name, stretch.start)


def _rename_speaker(film: Film, old: Record, out: Path) -> None:
    if (old.speaker, old.split) == (film.speaker, film.split):
        return
    for name in old.shards:
        shard = Shard.load(out / f"{name}.npz")
        replace(shard, speaker=film.speaker, split=film.split).save(out)
    replace(old, speaker=film.speaker, split=film.split).save(out / "films" / f"{film.stem}.json")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    partial.replace(path)


def track_all(films: list[Film], out: Path, workers: int) -> None:
    """make_shards for all films in that many processes; what is not begun is left where one of them fails."""
    (out / "films").mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,))
    try:
        for _ in tqdm(pool.map(partial(make_shards, out=out), films), desc="films", total=len(films), disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def synchronise(out: Path) -> list[Drop]:
    """Estimate every shard's lag and write it down there; shards that their sound does not explain are marked."""
    (out / "features").mkdir(exist_ok=True)
    encoder = WhisperEncoder.load()
    names, speakers, openings, features = [], [], [], []
    for path in tqdm(shard_paths(out), desc="audio features", disable=None):
        shard = Shard.load(path)
        if shard.sound.any():
            names.append(shard.name)
            speakers.append(shard.speaker)
            openings.append(mouth_opening(shard.landmarks))
            features.append(_upper_layers(shard, encoder, out / "features" / f"{shard.name}.npy"))
    syncs = dict(zip(names, estimate_lags(openings, features, speakers), strict=True))
    drops = []
    for path in shard_paths(out):
        shard = Shard.load(path)
        reason = _mark(shard, syncs.get(shard.name), out)
        if reason:
            drops.append(Drop(shard.film, f"{reason} (kept for the face model)", len(shard.landmarks) / FRAME_RATE_HZ))
    return drops


def _upper_layers(shard: Shard, encoder: WhisperEncoder, kept: Path) -> Array:
    """Layers 3 and 4 of the audio features (T, 768); all features are kept in a file for whoever trains on them."""
    if not kept.exists():
        content = BytesIO()
        np.save(content, encode_all(encoder, shard.sound.astype(np.float32)).astype(np.float16))
        _write(kept, content.getvalue())
    steps = np.load(kept).reshape(len(shard.landmarks), 2, 3, -1)
    layers: Array = steps.astype(np.float32).mean(1)[:, 1:]
    return layers.reshape(len(layers), -1)


def _mark(shard: Shard, sync: Sync | None, out: Path) -> str:
    """Write into the shard what is known of its sync; the reason why it is not in sync, empty where it is."""
    if sync is None:
        reason, lag_frames = "no sound", 0
    else:
        is_explained = sync.correlation >= LEAST_CORRELATION and sync.drift_frames <= LARGEST_DRIFT_FRAMES
        is_within = abs(sync.lag_frames) < LARGEST_LAG_FRAMES  # at the end of the search better lags may lie beyond
        reason, lag_frames = "" if is_explained and is_within else "out of sync", sync.lag_frames
    if (shard.synced, shard.lag_frames) != (not reason, lag_frames):
        replace(shard, synced=not reason, lag_frames=lag_frames).save(out)
    return reason


def write_report(out: Path, unsynced: list[Drop]) -> str:
    """report.json over everything in the folder; the same as a table to print."""
    records = [Record.load(path) for path in sorted((out / "films").glob("*.json"))]
    tracked_s = sum(len(np.load(path)["landmarks"]) for path in shard_paths(out)) / FRAME_RATE_HZ
    synced_s = tracked_s - sum(drop.seconds for drop in unsynced)
    reasons: dict[str, dict[str, Drop]] = {}
    for drop in [drop for record in records for drop in record.drops] + unsynced:
        films = reasons.setdefault(drop.reason, {})
        before = films[drop.film].seconds if drop.film in films else 0.0
        films[drop.film] = replace(drop, seconds=round(before + drop.seconds, 2))
    dropped = {
        reason: {"seconds": round(sum(drop.seconds for drop in films.values()), 2), "films": films}
        for reason, films in sorted(reasons.items())
    }
    report = {"films": len(records), "kept_s": round(tracked_s, 2), "in_sync_s": round(synced_s, 2), "dropped": dropped}
    _write(out / "report.json", json.dumps(report, indent=1, default=_told).encode())
    lines = [f"{tracked_s:9.1f} s  kept of {len(records)} films, {synced_s:.1f} s of them in sync with their sound"]
    if tracked_s < ENOUGH_TO_SYNC_S:
        lines.append(
            f"            {ENOUGH_TO_SYNC_S:.0f} s or more are wanted to tell what is in sync; with less it is a guess"
        )
    for reason, films in sorted(reasons.items()):
        lines.append(f"{sum(drop.seconds for drop in films.values()):9.1f} s  {reason}: {', '.join(sorted(films))}")
    return "\n".join(lines)


def _told(drop: Drop) -> dict[str, float | str]:
    return {"seconds": drop.seconds} | ({"detail": drop.detail} if drop.detail else {})


def main() -> None:
    parser = argparse.ArgumentParser(description="Track films and cut them into shards.")
    parser.add_argument("films", type=Path, nargs="+", help="films, or folders that are searched for films")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--table", type=Path, nargs="+", default=[], help="CSV with file, speaker, split")
    parser.add_argument("--workers", type=int, default=2, help="films that are tracked at once")
    options = parser.parse_args()
    try:
        track_all(find_films(options.films, options.table), options.out, options.workers)
        print(write_report(options.out, synchronise(options.out)))
    except KDTalkerError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
