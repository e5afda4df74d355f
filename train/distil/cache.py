"""Cache the outputs of the teacher: `python -m train.distil cache PLACES... --out DIR`. Run it again to resume.

PLACES are folders of shards, or sounds and folders of sounds. For each clip the teacher's audio features, motion
samples of several seeds and, where its words are known, phone labels are written, once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kdtalker.apps.batch.ray_workers import HERE
from kdtalker.audio.encoders import encode_all
from kdtalker.audio.whisper import LEFT_FRAMES, WhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, MOTION_WIDTH, Motion, to_head_frame
from kdtalker.core.protocols import AudioEncoder, Speech
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.speech import load_trained
from kdtalker.media.sound import read_sound
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.weights.find import find
from train.data.cluster import map_in_processes, map_on_ray
from train.data.films import Film, read_tables
from train.data.shards import Shard
from train.distil.alignment import label_frames, read_segments
from train.distil.distiller import UNLABELLED
from train.motion.dataset import align, cut_sound, fit_motion, to_model_vectors

SOUNDS = {".wav", ".ogg", ".flac", ".mp3", ".m4a", ".mp4"}
FEATURES, SAMPLES = ".features.npy", ".samples.npy"


@dataclass(frozen=True)
class TeacherRecord:
    """Hold a clip of T frames: sound (640 T,) float16; labels (T,), UNLABELLED where unknown; motion (T, 70), which
    counts where has_motion, and portrait (133,), both normalised as the teacher's; the teacher's features (T, F) and
    motion samples (K, T, 70), float16."""

    name: str
    speaker: str
    split: str
    sound: NDArray[np.float16]
    labels: NDArray[np.int8]
    motion: Array
    has_motion: bool
    portrait: Array
    features: NDArray[np.float16]
    samples: NDArray[np.float16]

    def save(self, folder: Path) -> None:
        """Write three files, the .npz last: where it is, the record is whole."""
        for suffix, value in ((FEATURES, self.features), (SAMPLES, self.samples)):
            write_atomically(folder / f"{self.name}{suffix}", lambda file, value=value: np.save(file, value))  # type: ignore[misc]
        large = ("features", "samples")
        small: dict[str, Any] = {name: value for name, value in vars(self).items() if name not in large}
        write_atomically(folder / f"{self.name}.npz", lambda file: np.savez(file, **small))

    @staticmethod
    def load(path: Path) -> TeacherRecord:
        """Read what `save` wrote, large arrays as views of their files. Raises InputError for another file."""
        try:
            with np.load(path) as file:
                values = {name: file[name] if file[name].ndim else file[name].item() for name in file.files}
            large = {
                name: np.load(path.with_name(path.stem + suffix), mmap_mode="r")
                for name, suffix in (("features", FEATURES), ("samples", SAMPLES))
            }
            return TeacherRecord(**values, **large)
        except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise InputError(f"'{path}' is no record of the teacher ({error}); remove it and cache again.") from None


def load_records(folder: Path) -> list[TeacherRecord]:
    """Load all records of a folder, sorted by name. Raises InputError where there are none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise InputError(f"'{folder}' holds no outputs of a teacher; make some with `python -m train.distil cache`.")
    return [TeacherRecord.load(path) for path in paths]


@cache
def load_teacher(checkpoint: Path | None) -> tuple[AudioEncoder[Any], DiffusionMotionModel]:
    """Load the teacher, by default the motion model of the package, once a process."""
    return load_trained(checkpoint or find("mesh_motion.safetensors"), MESH_SPACE)


@dataclass(frozen=True)
class CachePlan:
    """Say how records are made. samples: of motion, each of another seed; transcripts: regular expression of the names
    whose words are English and lie beside the sound, or in the folder `texts`; lookahead: frames of sound after a frame
    that its features may hear, None for all that the teacher hears; checkpoint: another teacher; faces: folder of
    records, whose faces speak the sounds without a film, None for the mean face."""

    out: Path
    samples: int = 8
    transcripts: str = ""
    texts: Path | None = None
    lookahead: int | None = None
    checkpoint: Path | None = None
    faces: Path | None = None


def encode_clip(encoder: AudioEncoder[Any], samples: Array, lookahead: int | None) -> Array:
    """Encode a sound (640 T,) into features (T, F); each frame anew with so much sound after it, where that is limited.
    Raises InputError for an encoder that cannot slide."""
    if lookahead is None:
        return encode_all(encoder, samples)
    if not isinstance(encoder, WhisperEncoder):
        raise InputError("Only features of Whisper can be limited to a look-ahead.")
    sliding = encoder.sliding(LEFT_FRAMES + 1 + lookahead)
    padded = np.pad(samples, (0, lookahead * SAMPLES_PER_FRAME)).astype(np.float32)
    state, parts = sliding.start(), []
    for frame, heard in enumerate(padded.reshape(-1, SAMPLES_PER_FRAME)):
        features, state = sliding.slide(state, heard)
        if frame >= lookahead:
            parts.append(features[-1 - lookahead])
    return np.stack(parts)


def make_record(film: Film, *, plan: CachePlan) -> None:
    """Make the record of a shard or a sound, unless it is there."""
    out = plan.out
    if (out / f"{film.stem}.npz").exists():
        return
    encoder, model = load_teacher(plan.checkpoint)
    is_shard = film.path.suffix == ".npz"
    clip = _read_shard(film, encoder, model, plan) if is_shard else _read_sound(film, encoder, model, plan)
    sound, features, canonical, rest, motion = clip
    labels = np.full(len(features), UNLABELLED, np.int8)
    if plan.transcripts and re.search(plan.transcripts, film.name):
        beside = plan.texts / f"{spoken_name(film)}.wav" if plan.texts else film.path
        segments = read_segments(beside, len(sound) / (25 * SAMPLES_PER_FRAME))
        labels = label_frames(sound, segments, len(features))
    offset = model.offset(rest)
    silence = Speech(encoder, model).silence
    made = sample_teacher(model, canonical, rest, features, silence=silence, count=plan.samples)
    reference = model.encode(to_head_frame(rest).vector()[0], offset)
    portrait = np.concatenate([model.normalisation.normalise_canonical(canonical.reshape(-1)), reference])
    still = np.zeros((len(features), len(reference)), np.float32)
    TeacherRecord(
        film.stem, film.speaker, film.split, sound.astype(np.float16), labels,
        still if motion is None else model.normalisation.normalise(motion).astype(np.float32), motion is not None,
        portrait.astype(np.float32), features.astype(np.float16), made.astype(np.float16),
    ).save(out)  # fmt: skip


def sample_teacher(
    model: DiffusionMotionModel, canonical: Array, rest: Motion, features: Array, *, silence: Array, count: int
) -> Array:
    """Sample normalised motion (K, T, 70) of as many seeds for features (T, F); silence (F,) of silence."""
    states = [model.start(canonical, rest, silence, seed=seed) for seed in range(count)]
    made = model.advance_many(states, [np.asarray(features, np.float32)] * count, last=True)
    offset = model.offset(rest)
    return np.stack([model.encode(to_head_frame(motion).vector(), offset) for motion, _ in made])


ClipData = tuple[Array, Array, Array, Motion, "Array | None"]  # sound, features, canonical, rest, motion where it fits


def spoken_name(film: Film) -> str:
    """Return the name of the file with a clip's words: the sound's own, or that of the film whose first clip it is."""
    if film.path.suffix != ".npz":
        return film.path.stem
    shard = Shard.load(film.path)
    return Path(shard.film).stem if shard.start_frame == 0 else film.path.stem


def _read_shard(film: Film, encoder: AudioEncoder[Any], model: DiffusionMotionModel, plan: CachePlan) -> ClipData:
    shard = Shard.load(film.path)
    motion, canonical = fit_motion(shard.landmarks, FaceModel.load())
    vectors, frames = to_model_vectors(motion, relative=True), cut_sound(shard.sound)
    rest = Motion.from_vector(vectors[:1], model.space)
    rest = Motion(rest.scale, 0 * rest.pose, 0 * rest.shift, rest.expression, model.space)
    lag_frames = shard.lag_frames if shard.synced else 0
    features = encode_clip(encoder, shard.sound.astype(np.float32), plan.lookahead)
    (moved, heard), (_, encoded) = align(vectors, frames, lag_frames), align(vectors, features, lag_frames)
    return heard.ravel(), encoded, canonical, rest, moved if shard.synced else None


def _read_sound(film: Film, encoder: AudioEncoder[Any], model: DiffusionMotionModel, plan: CachePlan) -> ClipData:
    """Read a sound, to be spoken by a face that its name draws, or by the mean face."""
    samples = np.concatenate(list(read_sound(film.path)))
    samples = np.pad(samples, (0, frame_count(len(samples)) * SAMPLES_PER_FRAME - len(samples)))
    portrait = np.zeros(3 * KEYPOINTS + MOTION_WIDTH, np.float32)
    if plan.faces is not None:
        portrait = draw_face(load_faces(plan.faces), np.random.default_rng(crc32(film.name.encode())))
    normalisation = model.normalisation
    rest = normalisation.restore(portrait[3 * KEYPOINTS :])
    rest[POSE_AND_SHIFT] = 0
    canonical = portrait[: 3 * KEYPOINTS] * normalisation.canonical_std + normalisation.canonical_mean
    features = encode_clip(encoder, samples, plan.lookahead)
    return samples, features, canonical.reshape(KEYPOINTS, 3), Motion.from_vector(rest[None], model.space), None


@cache
def load_faces(folder: Path) -> list[TeacherRecord]:
    """Load the records for training with real motion, once a process. Raises InputError where there are none."""
    faces = [record for record in load_records(folder) if record.has_motion and record.split == "train"]
    if not faces:
        raise InputError(f"'{folder}' holds no clips for training with real motion; cache shards there first.")
    return faces


def draw_face(faces: list[TeacherRecord], rng: np.random.Generator) -> Array:
    """Draw a portrait (133,): keypoints between those of two faces, the expression of any frame of the first."""
    first, second = (faces[int(number)] for number in rng.integers(len(faces), size=2))
    share = np.float32(rng.random())
    portrait = show_frame(first.portrait, first.motion[int(rng.integers(len(first.motion)))])
    portrait[: 3 * KEYPOINTS] += share * (second.portrait - first.portrait)[: 3 * KEYPOINTS]
    return portrait


def show_frame(portrait: Array, frame: Array) -> Array:
    """Give a portrait (133,) the expression of a frame (70,) of the same face; scale, pose and shift stay."""
    shown = portrait.copy()
    shown[-3 * KEYPOINTS :] = frame[-3 * KEYPOINTS :]
    return shown


def find_clips(places: list[Path], tables: list[Path]) -> list[Film]:
    """List shards and sounds of files and folders; shards know speaker and split, sounds have theirs from tables, else
    are their own speaker, for training. Raises InputError where a place does not exist, or holds neither."""
    rows, clips = read_tables(tables), []
    for place in (place.resolve() for place in places):
        if not place.exists():
            raise InputError(f"'{place}' does not exist, wanted a folder of shards or of sounds.")
        inside = sorted(place.glob("*.npz")) or sorted(path for path in place.rglob("*") if path.suffix in SOUNDS)
        for path in inside if place.is_dir() else [place]:
            row = rows.get(path, {})
            if path.suffix == ".npz":
                shard = Shard.load(path)
                row = {"speaker": shard.speaker, "split": shard.split}
            clips.append(Film(path, path.stem, row.get("speaker") or path.stem, row.get("split") or "train"))
    if not clips:
        raise InputError(f"No shards or sounds were found in {', '.join(map(str, places))}.")
    twice = sorted({clip.name for clip in clips if sum(other.name == clip.name for other in clips) > 1})
    if twice:
        raise InputError(f"Two clips are named '{twice[0]}'; rename one, records take their names.")
    return clips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("places", type=Path, nargs="+", help="folders of shards; sounds, or folders of sounds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--table", type=Path, nargs="+", action="extend", default=[], help="CSV: file, speaker, split")
    parser.add_argument("--samples", type=int, default=8, help="motion samples of each clip")
    parser.add_argument("--transcripts", default="", help="regular expression of names with English words beside them")
    parser.add_argument("--texts", type=Path, help="folder of these words, by the names of films or sounds")
    parser.add_argument("--lookahead", type=int, metavar="FRAMES", help="features hear no further: a ceiling")
    parser.add_argument("--checkpoint", type=Path, help="another teacher than the motion model of the package")
    parser.add_argument("--faces", type=Path, metavar="CACHE", help="folder of records whose faces speak the sounds; "
                        "default: the mean face")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="clips at once on this machine")
    parser.add_argument("--ray", nargs="?", const=HERE, metavar="ADDRESS", help="over Ray Data, here or on a cluster")


def run(options: argparse.Namespace) -> None:
    """Make all records that are missing."""
    clips = find_clips(options.places, options.table)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = CachePlan(options.out.resolve(), options.samples, options.transcripts, options.texts, options.lookahead,
                     options.checkpoint, options.faces)  # fmt: skip
    work: Callable[[Film], None] = partial(make_record, plan=plan)
    if options.ray:
        map_on_ray(clips, work, options.workers, options.ray)
    elif options.workers == 1:
        for clip in clips:
            work(clip)
    else:
        map_in_processes(clips, work, options.workers)
    records = load_records(options.out)
    labelled = sum(int((record.labels != UNLABELLED).sum()) for record in records)
    frames = sum(len(record.labels) for record in records)
    print(f"{options.out}: {len(records)} clips, {frames / 25 / 60:.1f} minutes, {labelled / 25 / 60:.1f} with labels")
