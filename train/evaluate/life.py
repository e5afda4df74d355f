"""Measure liveliness of heads and eyes over long sound: `python -m train.life [--films DATA] [--voices FOLDER]`.

The bundled portraits speak a minute of the bundled voices: blinks in the rendered video, drift of the head pose, and
acceleration at window borders. --films (a folder with clips.csv): head speed in speech over that in silence, real and
sampled. --voices: correlation of the mouth opening with the loudness of any speech.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker import Motion, Options, TalkingPortraitPipeline
from kdtalker.audio.encoders import encode_all
from kdtalker.core.arrays import Array
from kdtalker.core.motion import to_head_frame
from kdtalker.core.protocols import EncodedPortrait, Speech
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.face.landmarks import LIP_PAIRS, eye_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.renderers.mesh.source import MeshSource
from train.evaluate.held_out import align_to_sound, encode_first_frame, read_held_out, track_landmarks
from train.evaluate.metrics import BLINK_THRESHOLD
from train.harness.command import command
from train.harness.curves import correlation, log_loudness, rms_loudness

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAITS = ("grace_hopper.jpg", "astronaut.png")
MINUTE_S, VOICE_S, SEEDS = 60, 12, 6  # length of the long sound; length used of each of --voices; samples of a sound
BLINK_FRAMES = 8  # the lowest eye opening of a blink lies within so many frames of its start
SPEECH, SILENCE = 0.3, 0.06  # shares of the 90th percentile of loudness: speech lies above, silence below
PAUSE_FRAMES = 5  # loudness is averaged over so many frames
LEAST_FRAMES = 12  # clips with fewer frames of speech or of silence are left out


def sample_motion(speech: Speech, portrait: EncodedPortrait[MeshSource], samples: Array, seeds: int) -> list[Motion]:
    """Sample motions of one sound with several seeds, without edits; expressions in the head frame."""
    features, model, source = encode_all(speech.audio_encoder, samples), speech.motion_model, portrait.source
    motions = []
    for seed in range(seeds):
        state = model.start(source.canonical, source.rest, speech.silence, seed=seed)
        motion, _ = model.advance(state, features, last=True)
        motions.append(to_head_frame(motion))
    return motions


def describe_blinks(
    pipeline: TalkingPortraitPipeline[MeshSource], portrait: EncodedPortrait[MeshSource], samples: Array, seed: int
) -> str:
    """Count and describe the blinks in a rendered video, tracked by the iris model."""
    openings = eye_opening(track_landmarks(pipeline.animate(portrait, [samples], Options(seed=seed)), FaceTracker()))
    is_shut = openings < BLINK_THRESHOLD * np.median(openings)
    starts = np.flatnonzero(np.diff(is_shut.astype(int)) == 1)
    lowest = [float(openings[start : start + BLINK_FRAMES].min()) for start in starts]
    a_minute = len(starts) / len(openings) * 60 * FRAME_RATE_HZ
    return f"{a_minute:.1f} blinks a minute, eyes open to {np.median(lowest):.2f} in the median one"


def window_border_mask(config: DenoiserConfig, frames: int) -> NDArray[np.bool_]:
    """Mark the second differences (frames - 2,) of a motion that touch the overlap of two sampling windows."""
    near = np.zeros(frames - 2, bool)
    for border in range(config.window - config.overlap, frames, config.window - config.context - config.overlap):
        near[max(0, border - 2) : border + config.overlap] = True
    return near


@dataclass(frozen=True)
class HeadStability:
    """Hold mean accelerations in degrees at window borders and inside windows, and the drift of each quarter: distance
    of its mean pose from the whole mean, in standard deviations."""

    borders_deg: float
    inside_deg: float
    drifts: list[float]

    @staticmethod
    def of(motions: list[Motion], config: DenoiserConfig) -> HeadStability:
        """Measure sampled motions."""
        drifts, borders, insides = [], [], []
        for motion in motions:
            quarters = np.stack([part.mean(0) for part in np.array_split(motion.pose, 4)])
            drifts.append((np.abs(quarters - motion.pose.mean(0)) / motion.pose.std(0)).mean(1))
            acceleration = np.abs(np.diff(motion.pose, 2, axis=0)).sum(1)
            near = window_border_mask(config, len(motion))
            borders.append(acceleration[near].mean())
            insides.append(acceleration[~near].mean())
        return HeadStability(float(np.mean(borders)), float(np.mean(insides)), np.mean(drifts, axis=0).tolist())

    def __str__(self) -> str:
        quarters = " ".join(f"{drift:.2f}" for drift in self.drifts)
        return (
            f"accelerations {self.borders_deg:.3f} deg at window borders, {self.inside_deg:.3f} inside; "
            f"mean pose of each quarter {quarters} deviations from the whole's"
        )


def speech_silence_speed_ratio(pose: Array, level: Array) -> float | None:
    """Compute the mean angular speed in speech over that in silence; None where there is too little of either.

    pose (T, 3) in degrees; level (T,) RMS loudness."""
    length = min(len(pose), len(level))
    smooth = np.convolve(level, np.ones(PAUSE_FRAMES) / PAUSE_FRAMES, "same")[:length]
    speed = np.abs(np.gradient(pose[:length], axis=0)).sum(1)
    loud = float(np.percentile(level, 90))
    speech, silence = speed[smooth > SPEECH * loud], speed[smooth < SILENCE * loud]
    return float(speech.mean() / silence.mean()) if min(len(speech), len(silence)) >= LEAST_FRAMES else None


def measure_liveliness(pipeline: TalkingPortraitPipeline[MeshSource], data: Path) -> list[tuple[str, float, float]]:
    """Measure name, real and sampled speed ratio of every clip that has both speech and silence."""
    rows = []
    for film in read_held_out(data, ("train", "val")):
        samples = np.concatenate(list(read_sound(film.sound)))
        level = rms_loudness(samples)
        real = align_to_sound(
            np.concatenate([motion.pose for motion in pipeline.engine.track(read_video(film.path))]), film.lag_frames
        )
        lively = speech_silence_speed_ratio(real, level)
        if lively is not None:
            motions = sample_motion(
                pipeline.engine.speech, encode_first_frame(film, pipeline, crop=True), samples, SEEDS
            )
            ours = [speech_silence_speed_ratio(motion.pose, level) for motion in motions]
            rows.append((film.path.name, lively, float(np.mean([value for value in ours if value is not None]))))
    return rows


def mouth_loudness_correlation(speech: Speech, portrait: EncodedPortrait[MeshSource], samples: Array) -> float:
    """Correlate the mouth opening with log loudness at lag 0."""
    (motion,) = sample_motion(speech, portrait, samples, seeds=1)
    upper, lower = LIP_PAIRS[0]
    spreads = FaceModel.load().spreads
    gap = motion.expression[..., 1] @ (spreads[lower] - spreads[upper])
    return correlation(gap, log_loudness(samples))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="folder with clips.csv")
    parser.add_argument("--voices", type=Path, help="folder of sounds")
    options = parser.parse_args()
    pipeline = TalkingPortraitPipeline.mesh()
    speech, steady = pipeline.engine.speech, pipeline.engine.speech.motion_model
    assert isinstance(steady, FIRSmoothedModel)
    assert isinstance(steady.model, DiffusionMotionModel)
    voices = [np.concatenate(list(read_sound(path))) for path in sorted(EXAMPLES.glob("*.wav"))]
    minute = np.resize(np.concatenate(voices), MINUTE_S * SAMPLE_RATE_HZ)
    for seed, name in enumerate(PORTRAITS):
        portrait = pipeline.portrait(read_image(EXAMPLES / name), crop=True)
        print(f"{name}: {describe_blinks(pipeline, portrait, minute, seed)}")
        print(
            f"{name}: {HeadStability.of(sample_motion(speech, portrait, minute, SEEDS), steady.model.config)}",
            flush=True,
        )
    if options.films:
        rows = measure_liveliness(pipeline, options.films)
        for name, real, ours in rows:
            print(f"{name}: head speed in speech over silence, real {real:.2f}, sampled {ours:.2f}")
        real, ours = np.mean([row[1:] for row in rows], axis=0)
        print(f"mean of {len(rows)} films: real {real:.2f}, sampled {ours:.2f}, ratio {ours / real:.2f}")
    for path in sorted(options.voices.iterdir()) if options.voices else []:
        samples = np.concatenate(list(read_sound(path)))[: VOICE_S * SAMPLE_RATE_HZ]
        print(
            f"{path.name}: mouth follows loudness, r {mouth_loudness_correlation(speech, portrait, samples):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
