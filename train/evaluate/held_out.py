"""Generate clips of the validation split from their own first frame and compare them with the real ones."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import Motion
from kdtalker.core.options import WHOLE_WINDOWS
from kdtalker.core.protocols import AudioEncoder, EncodedPortrait, Speech, StateT
from kdtalker.face.landmarks import eye_opening, mouth_opening, outer_eye_distance
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.renderers.mesh.source import MeshSource
from train.evaluate.closeup import CloseUpMeter
from train.evaluate.metrics import mean_jerk
from train.evaluate.tracked import hold_last_face
from train.harness.curves import best_lag, correlation
from train.harness.figures import Metrics
from train.motion.validation import HEAD

COLUMNS = ("file", "kind", "split", "sync_r", "sync_lag_frames")
LEAST_SYNC = 0.4  # clips whose sound and mouth correlate less are left out


@dataclass(frozen=True)
class HeldOutClip:
    """Describe a clip of the validation split: video, file of its sound, and the frames by which the mouth is later."""

    path: Path
    sound: Path
    lag_frames: int


@dataclass(frozen=True)
class ZeroedEncoder(Generic[StateT]):
    """Wrap an audio encoder and zero its features, to measure the model without audio."""

    encoder: AudioEncoder[StateT]

    @property
    def feature_size(self) -> int:
        return self.encoder.feature_size

    @property
    def latency_frames(self) -> int:
        return self.encoder.latency_frames

    def start(self) -> StateT:
        return self.encoder.start()

    def encode(self, state: StateT, samples: Array) -> tuple[Array, StateT]:
        features, state = self.encoder.encode(state, samples)
        return 0 * features, state

    def flush(self, state: StateT) -> Array:
        return 0 * self.encoder.flush(state)


class UnheardEngine(MeshEngine):
    """Run the mesh engine with zeroed audio features."""

    def load_speech(self) -> Speech:
        speech = super().load_speech()
        return replace(speech, audio_encoder=ZeroedEncoder(speech.audio_encoder))


def read_held_out(data: Path, splits: tuple[str, ...]) -> list[HeldOutClip]:
    """Read clips.csv of a folder: real clips of these splits that are in sync with their sound.

    Raises InputError where the table is missing, lacks a column or names no such clip."""
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
                films.append(HeldOutClip(film, beside if beside.exists() else film, int(row["sync_lag_frames"])))
    if not films:
        raise InputError(f"'{path}' names no real film in sync with its sound of the split {', '.join(splits)}.")
    return films


def track_landmarks(frames: Iterable[Image], tracker: FaceTracker) -> Array:
    """Track landmarks (T, 468, 3), the last face held where it is lost."""
    return hold_last_face(tracker.follow_film(frames))


def align_to_sound(real: Array, lag_frames: int) -> Array:
    """Shift a curve (T, ...) of a real clip to its sound, the ends repeated."""
    frames = np.clip(np.arange(len(real)) + lag_frames, 0, len(real) - 1)
    moved: Array = real[frames]
    return moved


def encode_first_frame(
    clip: HeldOutClip, pipeline: TalkingPortraitPipeline[MeshSource], *, crop: bool
) -> EncodedPortrait[MeshSource]:
    """Encode the first frame of a clip as the source image."""
    return pipeline.portrait(next(iter(read_video(clip.path))), crop=crop)


def render_speech(
    film: HeldOutClip,
    pipeline: TalkingPortraitPipeline[MeshSource],
    tracker: FaceTracker,
    options: Options,
    kept: Path | None = None,
) -> tuple[Array, Motion]:
    """Generate a clip from its own sound; return landmarks tracked in the rendered video, and its motion.

    kept: the file to write the video to."""
    motions: list[Motion] = []
    portrait = encode_first_frame(film, pipeline, crop=True)
    frames = pipeline.animate(portrait, read_sound(film.sound), options, motions.append)
    made = track_landmarks(tee_video(frames, kept, film.sound) if kept else frames, tracker)
    return made, Motion.concatenate(motions)


def tee_video(frames: Iterator[Image], path: Path, sound: Path) -> Iterator[Image]:
    """Write frames to a video with sound while passing them on."""
    first = next(frames)
    with VideoWriter(path, first.shape[1], first.shape[0], sound=sound) as film:
        for frame in itertools.chain([first], frames):
            film.write(frame)
            yield frame


def measure_speech(
    film: HeldOutClip,
    pipeline: TalkingPortraitPipeline[MeshSource],
    seeds: int,
    options: Options,
    kept: Path | None = None,
) -> Metrics:
    """Compute the metrics of speech generated for one clip with several seeds, beside those in whole windows without
    audio.

    Correlations are with the real mouth, shifted to its sound by the table's lag; `best lag` is positive where the
    generated mouth is later; yaw, pitch and roll are standard deviations. kept: the file for the video of seed 0."""
    tracker = FaceTracker()
    real = track_landmarks(read_video(film.path), tracker)
    real_mouth = align_to_sound(mouth_opening(real), film.lag_frames)
    real_pose = np.concatenate([motion.pose for motion in pipeline.engine.track(read_video(film.path))])
    samples = [
        render_speech(film, pipeline, tracker, replace(options, seed=seed), None if seed else kept)
        for seed in range(seeds)
    ]
    mouths = np.stack([mouth_opening(made) for made, _ in samples])[:, : len(real_mouth)]
    poses = [motion.pose for _, motion in samples]
    engine = pipeline.engine
    assert isinstance(engine, MeshEngine)
    deaf = TalkingPortraitPipeline(UnheardEngine(engine.tracker, engine.renderer, engine.checkpoint, engine.personal))
    unheard, _ = render_speech(film, deaf, tracker, replace(options, seed=0, lookahead=WHOLE_WINDOWS))
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
        "jerk": float(np.mean([mean_jerk(pose) for pose in poses])) / mean_jerk(real_pose),
        "eye min": float(np.mean([eye_opening(made).min() for made, _ in samples])),
    }


def measure_reenactment(film: HeldOutClip, pipeline: TalkingPortraitPipeline[MeshSource]) -> Metrics:
    """Compute the metrics of a clip's self-reenactment from its own first frame."""
    tracker = FaceTracker()
    real = track_landmarks(read_video(film.path), tracker)
    portrait = encode_first_frame(film, pipeline, crop=False)
    meter = CloseUpMeter(real)
    rendered = pipeline.reenact(portrait, pipeline.engine.track(read_video(film.path)))
    made: list[Array] = []
    face = None
    for number, (frame, picture) in enumerate(zip(rendered, read_video(film.path), strict=False)):
        face = tracker.follow(frame, face) or face
        made.append(real[number] if face is None else face.landmarks)
        meter.add(number, picture, frame, made[-1])
    track = np.stack(made)
    real = real[: len(track)]
    distance = np.linalg.norm(track[..., :2] - real[..., :2], axis=-1).mean(1)
    return {
        "landmarks %": 100 * float((distance / outer_eye_distance(real)).mean()),
        "mouth r": correlation(mouth_opening(track), mouth_opening(real)),
        "mouth amplitude": float(mouth_opening(track).std() / mouth_opening(real).std()),
        "eyes r": correlation(eye_opening(track), eye_opening(real)),
        **meter.metrics(),
    }


def measure_clips(
    films: list[HeldOutClip],
    measure: Callable[[HeldOutClip], Metrics],
    rows_file: Path | None,
    asked: dict[str, object],
) -> Iterator[tuple[HeldOutClip, Metrics]]:
    """Measure each clip; metrics that the file holds for the same settings `asked` are not computed again."""
    rows: dict[str, Metrics] = {}
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
