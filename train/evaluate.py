"""Figures of films, ours and others': `python -m train.evaluate films|measures|talk|reenact`.

films FILMS [--reference FILMS]: any films as they are, by the table of measures, which `measures` tells. talk and
reenact DATA make films first, DATA being a folder with clips.csv. talk: the first frame of each film held out speaks
the film's own sound; the mouth tracked in what was rendered is compared with the real one. reenact: the first frame
follows the film itself. One line a film, then the summary.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.audio import read_sound
from kdtalker.audio_encoder import AudioEncoder, EncoderState
from kdtalker.errors import KDTalkerError
from kdtalker.motion import Array, Motion
from kdtalker.pipeline import EncodedPortrait
from kdtalker.tracker import MOUTH_CORNERS, Face, FaceTracker, eye_opening, mouth_opening, outer_eye_distance
from kdtalker.video import read_film
from train.curves import best_lag, correlation
from train.films_report import find_pairs, measure_films, tell_measures, write_report

LEAST_SYNC = 0.4


@dataclass(frozen=True)
class Film:
    """A row of the table: the film, where its sound is, and by how many frames its mouth is later than that."""

    path: Path
    sound: Path
    lag_frames: int


@dataclass(frozen=True)
class ZeroedEncoder:
    """The same stream of features with every number 0: what the model does without hearing anything."""

    encoder: AudioEncoder

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


def real_films(data: Path, splits: tuple[str, ...]) -> list[Film]:
    """The real films of people in these splits whose mouth and sound go together."""
    films = []
    with (data / "clips.csv").open() as table:
        for row in csv.DictReader(table):
            if row["kind"] == "real" and row["split"] in splits and abs(float(row["sync_r"])) >= LEAST_SYNC:
                path = data / row["file"]
                beside = path.with_suffix(".wav")
                films.append(Film(path, beside if beside.exists() else path, int(row["sync_lag_frames"])))
    return films


def landmarks(frames: Iterable[NDArray[np.uint8]], tracker: FaceTracker) -> Array:
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
    return pipeline.portrait(next(iter(read_film(film.path))), crop=crop)


def spoken(
    film: Film, pipeline: TalkingPortraitPipeline, tracker: FaceTracker, options: Options
) -> tuple[Array, Motion]:
    """Landmarks of the rendered film and the motion that it was rendered from."""
    motions: list[Motion] = []
    portrait = first_frame(film, pipeline, crop=True)
    frames = pipeline.animate(portrait, read_sound(film.sound), options, motions.append)
    return landmarks(frames, tracker), Motion.concatenate(motions)


def jerk(pose: Array) -> float:
    """Mean size of the third differences."""
    return float(np.abs(np.diff(pose, 3, axis=0)).mean())


def talk(film: Film, pipeline: TalkingPortraitPipeline, seeds: int, guidance: float) -> dict[str, float]:
    """Figures of one film. Correlations are with the real mouth moved to its sound by the table's lag; `best lag` is
    positive where the rendered mouth is later."""
    tracker = FaceTracker()
    real = landmarks(read_film(film.path), tracker)
    real_mouth = in_time(mouth_opening(real), film.lag_frames)
    real_pose = np.concatenate([motion.pose for motion in pipeline.track(read_film(film.path))])
    takes = [spoken(film, pipeline, tracker, Options(seed=seed, guidance=guidance)) for seed in range(seeds)]
    mouths = np.stack([mouth_opening(take) for take, _ in takes])[:, : len(real_mouth)]
    poses = [motion.pose for _, motion in takes]
    speech = pipeline.speech
    deaf = replace(pipeline, load_speech=lambda: replace(speech, audio_encoder=ZeroedEncoder(speech.audio_encoder)))
    unheard, _ = spoken(film, deaf, tracker, Options(seed=0, guidance=guidance))
    spread = np.mean([pose.std(0) for pose in poses], axis=0) / real_pose.std(0)
    return {
        "r mean": correlation(mouths.mean(0), real_mouth),
        "r seed 0": correlation(mouths[0], real_mouth),
        "amplitude": float(mouths[0].std() / real_mouth.std()),
        "best lag": best_lag(mouths.mean(0), real_mouth),
        "r at best": max(correlation(mouths.mean(0), real_mouth, lag) for lag in range(-6, 7)),
        "r unheard": correlation(mouth_opening(unheard), real_mouth),
        "yaw seeds": correlation(poses[0][:, 0], poses[1][:, 0]),
        "yaw sd": float(spread[0]),
        "pitch sd": float(spread[1]),
        "roll sd": float(spread[2]),
        "jerk": float(np.mean([jerk(pose) for pose in poses])) / jerk(real_pose),
        "eye min": float(np.mean([eye_opening(take).min() for take, _ in takes])),
    }


def reenact(film: Film, pipeline: TalkingPortraitPipeline) -> dict[str, float]:
    """Figures of one film that its own first frame follows."""
    tracker = FaceTracker()
    real = landmarks(read_film(film.path), tracker)
    portrait = first_frame(film, pipeline, crop=False)
    errors: list[float] = []

    def compared() -> Iterator[NDArray[np.uint8]]:
        drawn = pipeline.reenact(portrait, pipeline.track(read_film(film.path)))
        for frame, picture, points in zip(drawn, read_film(film.path), real, strict=False):
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


def mouth_error(frame: NDArray[np.uint8], picture: NDArray[np.uint8], points: Array) -> float:
    """Mean square error in the box around the real mouth, 0.4 of its width added all around."""
    left, right = points[list(MOUTH_CORNERS), :2]
    middle, reach = (left + right) / 2, 0.9 * float(np.linalg.norm(right - left))
    low, high = np.maximum(middle - reach, 0).astype(int), (middle + reach).astype(int)
    boxes = [image[low[1] : high[1], low[0] : high[0]].astype(np.float64) for image in (frame, picture)]
    return float(np.mean((boxes[0] - boxes[1]) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of films.")
    commands = parser.add_subparsers(dest="what", required=True)
    films = commands.add_parser("films", help="finished films, of any system")
    films.add_argument("films", type=Path, help="a film, or a folder of films")
    films.add_argument("--reference", type=Path, help="the film to compare with, or a folder with films of those names")
    films.add_argument("--out", type=Path, required=True, help="folder for table, JSON and pictures")
    films.add_argument("--syncnet", type=Path, help="SyncNet's weights (.model), for LSE-C and LSE-D; unverified")
    commands.add_parser("measures", help="what each measure is")
    for name in ("talk", "reenact"):
        command = commands.add_parser(name, help="films that are made for it")
        command.add_argument("data", type=Path, help="folder with clips.csv")
        command.add_argument("--checkpoint", type=Path, help="a motion model of your own")
        command.add_argument("--seeds", type=int, default=8)
        command.add_argument("--guidance", type=float, default=Options().guidance)
    options = parser.parse_args()
    try:
        if options.what == "measures":
            print(tell_measures())
        elif options.what == "films":
            rows, skipped = measure_films(find_pairs(options.films, options.reference), options.syncnet)
            print(write_report(rows, skipped, options.out))
            for name, reason in skipped.items():
                print(f"skipped {name}: {reason}")
        else:
            tell_made_films(options.what, options.data, options)
    except KDTalkerError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def tell_made_films(what: str, data: Path, options: argparse.Namespace) -> None:
    """One line a film, then mean and median."""
    pipeline = TalkingPortraitPipeline.mesh(options.checkpoint)
    rows: list[list[float]] = []
    for film in real_films(data, ("val",)):
        figures = talk(film, pipeline, options.seeds, options.guidance) if what == "talk" else reenact(film, pipeline)
        if not rows:
            print(" | ".join(["film", *figures]))
        rows.append(list(figures.values()))
        print(" | ".join([film.path.name, *(f"{value:.3f}" for value in figures.values())]), flush=True)
    for name, summary in (("mean", np.mean), ("median", np.median)):
        print(" | ".join([name, *(f"{value:.3f}" for value in summary(rows, axis=0))]))


if __name__ == "__main__":
    main()
