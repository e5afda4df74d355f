"""Films of people held out, made from their own first frame and compared with what they really did."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.audio.whisper import EncoderState
from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import Motion
from kdtalker.core.protocols import AudioEncoder, EncodedPortrait, Speech
from kdtalker.face.landmarks import MOUTH_CORNERS, eye_opening, mouth_opening, outer_eye_distance
from kdtalker.face.tracker import Face, FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.engine import MeshEngine
from train.harness.curves import best_lag, correlation
from train.motion.validation import HEAD

COLUMNS = ("file", "kind", "split", "sync_r", "sync_lag_frames")
LEAST_SYNC = 0.4

Figures = dict[str, float]


@dataclass(frozen=True)
class Film:
    """A row of the table: the film, where its sound is, and by how many frames its mouth is later than that."""

    path: Path
    sound: Path
    lag_frames: int


@dataclass(frozen=True)
class ZeroedEncoder:
    """The same stream of features with every number 0: what the model does without hearing anything."""

    encoder: AudioEncoder[EncoderState]

    @property
    def feature_size(self) -> int:
        return self.encoder.feature_size

    def start(self) -> EncoderState:
        return self.encoder.start()

    def encode(self, state: EncoderState, samples: Array) -> tuple[Array, EncoderState]:
        features, state = self.encoder.encode(state, samples)
        return 0 * features, state

    def flush(self, state: EncoderState) -> Array:
        return 0 * self.encoder.flush(state)


class UnheardEngine(MeshEngine):
    """The mesh engine, hearing nothing."""

    def load_speech(self) -> Speech:
        speech = super().load_speech()
        return replace(speech, audio_encoder=ZeroedEncoder(speech.audio_encoder))


def real_films(data: Path, splits: tuple[str, ...]) -> list[Film]:
    """The real films of people in these splits whose mouth and sound go together. Raises InputError where there are
    none."""
    films, path = [], data / "clips.csv"
    if not path.is_file():
        raise InputError(f"'{data}' holds no clips.csv, wanted a table with {', '.join(COLUMNS)}.")
    with path.open(encoding="utf-8-sig", newline="") as table:
        reader = csv.DictReader(table)
        if missing := set(COLUMNS) - set(reader.fieldnames or []):
            raise InputError(f"The table '{path}' lacks the columns {', '.join(sorted(missing))}.")
        for row in reader:
            if row["kind"] == "real" and row["split"] in splits and abs(float(row["sync_r"])) >= LEAST_SYNC:
                film = data / row["file"]
                beside = film.with_suffix(".wav")
                films.append(Film(film, beside if beside.exists() else film, int(row["sync_lag_frames"])))
    if not films:
        raise InputError(f"'{path}' names no real film in sync with its sound of the split {', '.join(splits)}.")
    return films


def landmarks(frames: Iterable[Image], tracker: FaceTracker) -> Array:
    """(T, 468, 3); a frame without a face repeats the one before."""
    found: list[Array] = []
    last: Face | None = None
    for face in tracker.follow_film(frames):
        last = face or last
        if last is not None:
            found.append(last.landmarks)
    return np.stack(found)


def in_time(real: Array, lag_frames: int) -> Array:
    """The real film's curve moved to its sound; ends repeat."""
    frames = np.clip(np.arange(len(real)) + lag_frames, 0, len(real) - 1)
    moved: Array = real[frames]
    return moved


def first_frame(film: Film, pipeline: TalkingPortraitPipeline, *, crop: bool) -> EncodedPortrait:
    return pipeline.portrait(next(iter(read_video(film.path))), crop=crop)


def spoken(
    film: Film, pipeline: TalkingPortraitPipeline, tracker: FaceTracker, options: Options, kept: Path | None = None
) -> tuple[Array, Motion]:
    """Landmarks of the rendered film and the motion that it was rendered from; kept: where the film is written."""
    motions: list[Motion] = []
    portrait = first_frame(film, pipeline, crop=True)
    frames = pipeline.animate(portrait, read_sound(film.sound), options, motions.append)
    made = landmarks(written(frames, kept, film.sound) if kept else frames, tracker)
    return made, Motion.concatenate(motions)


def written(frames: Iterator[Image], path: Path, sound: Path) -> Iterator[Image]:
    """The same frames, written as a film on their way."""
    first = next(frames)
    with VideoWriter(path, first.shape[1], first.shape[0], sound=sound) as film:
        for frame in itertools.chain([first], frames):
            film.write(frame)
            yield frame


def jerk(pose: Array) -> float:
    """Mean size of the third differences."""
    return float(np.abs(np.diff(pose, 3, axis=0)).mean())


def talk(
    film: Film, pipeline: TalkingPortraitPipeline, seeds: int, guidance: float, kept: Path | None = None
) -> Figures:
    """Figures of one film. Correlations are with the real mouth moved to its sound by the table's lag; `best lag` is
    positive where the rendered mouth is later; yaw, pitch and roll are deviations. kept: where the film of seed 0 is
    written."""
    tracker = FaceTracker()
    real = landmarks(read_video(film.path), tracker)
    real_mouth = in_time(mouth_opening(real), film.lag_frames)
    real_pose = np.concatenate([motion.pose for motion in pipeline.engine.track(read_video(film.path))])
    takes = [
        spoken(film, pipeline, tracker, Options(seed=seed, guidance=guidance), None if seed else kept)
        for seed in range(seeds)
    ]
    mouths = np.stack([mouth_opening(take) for take, _ in takes])[:, : len(real_mouth)]
    poses = [motion.pose for _, motion in takes]
    engine = pipeline.engine
    assert isinstance(engine, MeshEngine)
    deaf = TalkingPortraitPipeline(UnheardEngine(engine.tracker, engine.renderer, engine.checkpoint))
    unheard, _ = spoken(film, deaf, tracker, Options(seed=0, guidance=guidance))
    spread, real_spread = np.mean([pose.std(0) for pose in poses], axis=0), real_pose.std(0)
    return {
        "r mean": correlation(mouths.mean(0), real_mouth),
        "r seed 0": correlation(mouths[0], real_mouth),
        "amplitude": float(mouths[0].std() / real_mouth.std()),
        "best lag": best_lag(mouths.mean(0), real_mouth),
        "r at best": max(correlation(mouths.mean(0), real_mouth, lag) for lag in range(-6, 7)),
        "r unheard": correlation(mouth_opening(unheard), real_mouth),
        "yaw seeds": correlation(poses[0][:, 0], poses[1][:, 0]),
        **{f"{name} deg": float(value) for name, value in zip(HEAD, spread, strict=True)},
        **{f"real {name}": float(value) for name, value in zip(HEAD, real_spread, strict=True)},
        "jerk": float(np.mean([jerk(pose) for pose in poses])) / jerk(real_pose),
        "eye min": float(np.mean([eye_opening(take).min() for take, _ in takes])),
    }


def reenact(film: Film, pipeline: TalkingPortraitPipeline) -> Figures:
    """Figures of one film that its own first frame follows."""
    tracker = FaceTracker()
    real = landmarks(read_video(film.path), tracker)
    portrait = first_frame(film, pipeline, crop=False)
    errors: list[float] = []

    def compared() -> Iterator[Image]:
        drawn = pipeline.reenact(portrait, pipeline.engine.track(read_video(film.path)))
        for frame, picture, points in zip(drawn, read_video(film.path), real, strict=False):
            errors.append(mouth_error(frame, picture, points))
            yield frame

    made = landmarks(compared(), tracker)
    length = min(len(made), len(real))
    distance = np.linalg.norm(made[:length, :, :2] - real[:length, :, :2], axis=-1).mean(1)
    return {
        "landmarks %": 100 * float((distance / outer_eye_distance(real[:length])).mean()),
        "mouth r": correlation(mouth_opening(made), mouth_opening(real)),
        "mouth amplitude": float(mouth_opening(made).std() / mouth_opening(real).std()),
        "eyes r": correlation(eye_opening(made), eye_opening(real)),
        "mouth PSNR dB": float(10 * np.log10(255**2 / np.mean(errors))),
    }


def mouth_error(frame: Image, picture: Image, points: Array) -> float:
    """Mean square error in the box around the real mouth, 0.4 of its width added all around."""
    left, right = points[list(MOUTH_CORNERS), :2]
    middle, reach = (left + right) / 2, 0.9 * float(np.linalg.norm(right - left))
    low, high = np.maximum(middle - reach, 0).astype(int), (middle + reach).astype(int)
    boxes = [image[low[1] : high[1], low[0] : high[0]].astype(np.float64) for image in (frame, picture)]
    return float(np.mean((boxes[0] - boxes[1]) ** 2))


def measured(
    films: list[Film], measure: Callable[[Film], Figures], rows_file: Path | None, asked: dict[str, object]
) -> Iterator[tuple[Film, Figures]]:
    """Each film with its figures; those that the file holds already, of the same question, are not measured again."""
    rows: dict[str, Figures] = {}
    if rows_file is not None and rows_file.exists():
        known = json.loads(rows_file.read_text("utf-8"))
        rows = known["films"] if known["asked"] == asked else {}
    for film in films:
        if film.path.name not in rows:
            rows[film.path.name] = measure(film)
            if rows_file is not None:
                content = json.dumps({"asked": asked, "films": rows}, indent=1).encode()
                write_atomically(rows_file, lambda file, content=content: file.write(content))  # type: ignore[misc]
        yield film, rows[film.path.name]
