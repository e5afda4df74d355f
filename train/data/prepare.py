"""Track films and cut them into shards: `python -m train.data FILMS... --out SHARDS [--ray [ADDRESS]]`. Resumable.

FILMS are files or folders. Each film is tracked at 25 fps and cut into clips where its face, of several the
largest, is always there and never jumps; then the lag between mouth and sound is estimated over all clips together.
The table gives split and speaker; a film without a row counts as its own speaker, for training. SHARDS/report.json
tells what was dropped, SHARDS/manifest.json every film with its shards and their sha256.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from kdtalker.apps.batch.ray_workers import HERE
from kdtalker.audio.encoders import DEFAULT_ENCODER, ENCODERS, encoder_spec
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.face.landmarks import EYE_CONTOURS, LANDMARKS, mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.weights.find import find
from train.data.cluster import map_in_processes, map_on_ray
from train.data.features import load_features
from train.data.films import LAYOUTS, Film, find_films
from train.data.records import REPORT_FILE, Drop, Record, write_manifest, write_report
from train.data.shards import PUBLISHED, Shard, shard_paths
from train.data.sync import LARGEST_LAG_FRAMES, Sync, estimate_lags
from train.harness.command import command

DETECT_EVERY_FRAMES = 25  # other faces are detected this often
MIN_CLIP_S, MIN_EYE_DISTANCE_PX = 1.0, 30.0  # shorter clips and smaller faces are dropped
MAX_STEP, MAX_GROWTH = 0.5, 0.15  # a face jumps if it moves or grows by more eye distances than this in a frame
SETTLING_FRAMES = 2  # so many frames before and after a jump are dropped: the tracker may be between two faces
MIN_CORRELATION = 0.5  # clips whose sound explains less of the mouth count as out of sync
MAX_DRIFT_FRAMES = 1  # clips whose halves differ in lag by more than this count as out of sync


def track(path: Path) -> tuple[Array, float]:
    """Track the largest face of a film at 25 fps: landmarks (T, 468, 3), NaN where there is none, and for how many
    seconds there are other faces. Raises InputError as `read_video`."""
    nothing = np.full((LANDMARKS, 3), np.nan, np.float32)
    tracker, face, frames, crowded_s = FaceTracker(), None, [], 0.0
    for number, frame in enumerate(read_video(path)):
        face = tracker.follow(frame, face)
        frames.append(face.landmarks if face else nothing)
        if face and number % DETECT_EVERY_FRAMES == 0 and len(tracker.find(frame)) > 1:
            crowded_s += DETECT_EVERY_FRAMES / FRAME_RATE_HZ
    if not frames:
        raise InputError(f"'{path}' has no frames, wanted a film.")
    return np.stack(frames), min(crowded_s, len(frames) / FRAME_RATE_HZ)


def read_sound_of(film: Path) -> Array:
    """Read the sound of the .wav beside a film, else its own: (N,) at 16 kHz, empty where there is neither."""
    beside = film.with_suffix(".wav")
    try:
        return np.concatenate(list(read_sound(beside if beside.exists() else film)))
    except InputError:
        return np.zeros(0, np.float32)


def split_clips(landmarks: Array) -> Iterator[tuple[slice, str]]:
    """Split a film into clips, each with the reason why it is dropped, empty where it is fit for training."""
    eyes = np.stack([landmarks[:, list(contour), :2].mean(1) for contour in EYE_CONTOURS])
    distance = np.linalg.norm(eyes[0] - eyes[1], axis=-1)
    middle = eyes.mean(0)
    step = np.linalg.norm(np.diff(middle, axis=0), axis=-1) / distance[1:]
    growth = np.abs(np.diff(distance)) / distance[1:]
    is_lost = np.isnan(distance)
    is_jump = np.r_[False, (step > MAX_STEP) | (growth > MAX_GROWTH)]
    is_unsettled = np.convolve(is_jump, np.ones(2 * SETTLING_FRAMES + 1))[SETTLING_FRAMES:-SETTLING_FRAMES] > 0
    is_cut = is_unsettled | np.r_[True, is_lost[1:] != is_lost[:-1]]
    starts = [*np.flatnonzero(is_cut), len(landmarks)]
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        clip = slice(int(start), int(end))
        if is_lost[start]:
            yield clip, "face lost"
        elif end - start < MIN_CLIP_S * FRAME_RATE_HZ:
            yield clip, "jumps, or too short between them"
        elif np.median(distance[clip]) < MIN_EYE_DISTANCE_PX:
            yield clip, "face too small"
        else:
            yield clip, ""


def make_shards(film: Film, out: Path, *, published: bool = False) -> None:
    """Track one film and write its shards, and then the record that says it is done; nothing where it has been done
    already, except what the table now says differently. published: also LivePortrait's motion."""
    place, status = out / "films" / f"{film.stem}.json", film.path.stat()
    record = Record(film.name, status.st_size, status.st_mtime_ns, film.speaker, film.split, [], [])
    if place.exists():
        old = Record.load(place)
        if (old.size_bytes, old.modified_ns) == (record.size_bytes, record.modified_ns):
            _rename_speaker(film, old, out)
            if published:
                _add_published(film, old.shards, out)
            return
        for name in old.shards:
            (out / f"{name}.npz").unlink(missing_ok=True)
            for spec in ENCODERS.values():
                (out / spec.cache_folder / f"{name}.npy").unlink(missing_ok=True)
            (out / PUBLISHED / f"{name}.npz").unlink(missing_ok=True)
    try:
        landmarks, crowded_s = track(film.path)
        sound = read_sound_of(film.path)
    except (InputError, cv2.error) as error:
        replace(record, drops=[Drop(film.name, "cannot be read", 0.0, str(error))]).save(place)
        return
    if crowded_s:
        record.drops.append(Drop(film.name, "smaller faces beside the one that is followed", crowded_s))
    for clip, reason in split_clips(landmarks):
        if reason:
            record.drops.append(Drop(film.name, reason, (clip.stop - clip.start) / FRAME_RATE_HZ))
            continue
        shard = _shard(film, landmarks, sound, clip)
        shard.save(out)
        record.shards.append(shard.name)
    if published:
        _add_published(film, record.shards, out)
    record.save(place)


def _add_published(film: Film, shards: list[str], out: Path) -> None:
    from train.data.published import add_published, load_extractor

    missing = [name for name in shards if not (out / PUBLISHED / f"{name}.npz").exists()]
    if missing:
        add_published(film.path, [Shard.load(out / f"{name}.npz") for name in missing], out, load_extractor())


def _shard(film: Film, landmarks: Array, sound: Array, clip: slice) -> Shard:
    """Make the shard of a clip, its sound padded with silence to the film's length; sync is not yet estimated."""
    clip_sound = sound[clip.start * SAMPLES_PER_FRAME : clip.stop * SAMPLES_PER_FRAME]
    samples = (clip.stop - clip.start) * SAMPLES_PER_FRAME
    padded = np.pad(clip_sound, (0, samples - len(clip_sound))).astype(np.float16)
    return Shard(landmarks[clip], padded, False, 0, film.speaker, film.split, film.name, clip.start)


def _rename_speaker(film: Film, old: Record, out: Path) -> None:
    if (old.speaker, old.split) == (film.speaker, film.split):
        return
    for name in old.shards:
        shard = Shard.load(out / f"{name}.npz")
        replace(shard, speaker=film.speaker, split=film.split).save(out)
    replace(old, speaker=film.speaker, split=film.split).save(out / "films" / f"{film.stem}.json")


def synchronise(out: Path) -> list[Drop]:
    """Estimate the A/V offset of every shard and write it there; mark and return those that are out of sync."""
    spec = encoder_spec(DEFAULT_ENCODER)
    encoder, folder = spec.load(find), out / spec.cache_folder
    folder.mkdir(exist_ok=True)
    names, speakers, openings, features = [], [], [], []
    for path in tqdm(shard_paths(out), desc="audio features", disable=None):
        shard = Shard.load(path)
        if shard.sound.any():
            names.append(shard.name)
            speakers.append(shard.speaker)
            openings.append(mouth_opening(shard.landmarks))
            features.append(spec.sync_features(load_features(shard, encoder, folder)))
    syncs = dict(zip(names, estimate_lags(openings, features, speakers), strict=True))
    drops = []
    for path in shard_paths(out):
        shard = Shard.load(path)
        reason = _mark(shard, syncs.get(shard.name), out)
        if reason:
            drops.append(Drop(shard.film, f"{reason} (kept for the face model)", len(shard.landmarks) / FRAME_RATE_HZ))
    return drops


def _mark(shard: Shard, sync: Sync | None, out: Path) -> str:
    """Write the estimated sync into the shard; return why it is out of sync, empty where it is in sync."""
    if sync is None:
        reason, lag_frames = "no sound", 0
    else:
        is_explained = sync.correlation >= MIN_CORRELATION and sync.drift_frames <= MAX_DRIFT_FRAMES
        is_within = abs(sync.lag_frames) < LARGEST_LAG_FRAMES  # at the end of the search better lags may lie beyond
        reason, lag_frames = "" if is_explained and is_within else "out of sync", sync.lag_frames
    if (shard.synced, shard.lag_frames) != (not reason, lag_frames):
        replace(shard, synced=not reason, lag_frames=lag_frames).save(out)
    return reason


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Track films and cut them into shards.")
    parser.add_argument("films", type=Path, nargs="+", help="films, or folders that are searched for films")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--table", type=Path, nargs="+", action="extend", default=[], help="CSV: file, speaker, split")
    parser.add_argument("--layout", choices=LAYOUTS, help="take the speaker from a film's name as this corpus has it")
    parser.add_argument("--workers", type=int, default=2, help="films that are tracked at once on this machine")
    parser.add_argument(
        "--ray", nargs="?", const=HERE, metavar="ADDRESS", help="over Ray Data, here or on that cluster"
    )
    parser.add_argument("--published", action="store_true", help="also the motion that LivePortrait's networks see")
    options = parser.parse_args()
    films = find_films(options.films, options.table, options.layout)
    (options.out / "films").mkdir(parents=True, exist_ok=True)
    work = partial(make_shards, out=options.out.resolve(), published=options.published)
    if options.ray:
        map_on_ray(films, work, options.workers, options.ray)
    else:
        map_in_processes(films, work, options.workers)
    print(write_report(options.out, synchronise(options.out)))
    write_manifest(options.out)
    if not shard_paths(options.out):
        raise InputError(f"No film of {len(films)} became a shard; '{options.out / REPORT_FILE}' says why of each.")


if __name__ == "__main__":
    main()
