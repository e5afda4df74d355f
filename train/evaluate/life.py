"""Is it alive: `python -m train.life [--films DATA] [--voices FOLDER]`, figures of heads and eyes over longer sound.

A minute of the bundled voices, said by the bundled portraits: blinks as they are seen in the rendered film, whether the
head drifts, whether it jolts where windows meet. --films (a folder with clips.csv): how much more heads move in speech
than in silence, real ones and sampled ones. --voices: the mouth against the loudness of any speech.
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
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, frame_count
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.fir_smoothing import SteadyModel
from kdtalker.diffusion.model import MotionModel
from kdtalker.face.landmarks import LIP_PAIRS, eye_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.geometry import FaceModel
from train.evaluate.held_out import first_frame, in_time, landmarks, real_films
from train.harness.command import command
from train.harness.curves import correlation

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAITS = ("grace_hopper.jpg", "astronaut.png")
MINUTE_S, VOICE_S, SEEDS = 60, 12, 6
BLINK, BLINK_FRAMES = 0.45, 8  # of the median eye opening; in which a blink is at its lowest
SPEECH, SILENCE = 0.3, 0.06  # of the 90th percentile of loudness: above the one, below the other
PAUSE_FRAMES = 5  # over which loudness is averaged
LEAST_FRAMES = 12  # of speech and of silence, for a film to tell anything


def sample(speech: Speech, portrait: EncodedPortrait, samples: Array, seeds: int) -> list[Motion]:
    """Takes of one sound as sampled, before any edit; expressions in the head's own frame."""
    features, model, source = encode_all(speech.audio_encoder, samples), speech.motion_model, portrait.source
    takes = []
    for seed in range(seeds):
        state = model.start(source.canonical, source.rest, speech.silence, seed=seed)
        motion, _ = model.advance(state, features, last=True)
        takes.append(to_head_frame(motion))
    return takes


def blinks(pipeline: TalkingPortraitPipeline, portrait: EncodedPortrait, samples: Array, seed: int) -> str:
    """Blinks of a rendered film, by the iris model."""
    openings = eye_opening(landmarks(pipeline.animate(portrait, [samples], Options(seed=seed)), FaceTracker()))
    is_shut = openings < BLINK * np.median(openings)
    starts = np.flatnonzero(np.diff(is_shut.astype(int)) == 1)
    lowest = [float(openings[start : start + BLINK_FRAMES].min()) for start in starts]
    a_minute = len(starts) / len(openings) * 60 * FRAME_RATE_HZ
    return f"{a_minute:.1f} blinks a minute, eyes open to {np.median(lowest):.2f} in the median one"


def near_borders(config: DenoiserConfig, frames: int) -> NDArray[np.bool_]:
    """Which second differences of a motion touch frames that two windows were blended for."""
    near = np.zeros(frames - 2, bool)
    for border in range(config.window - config.overlap, frames, config.window - config.context - config.overlap):
        near[max(0, border - 2) : border + config.overlap] = True
    return near


@dataclass(frozen=True)
class OverTime:
    """Mean accelerations in degrees at window borders and inside; how far each quarter's mean pose is from the whole's,
    in its deviations."""

    borders_deg: float
    inside_deg: float
    drifts: list[float]

    @staticmethod
    def of(takes: list[Motion], config: DenoiserConfig) -> OverTime:
        drifts, borders, insides = [], [], []
        for take in takes:
            quarters = np.stack([part.mean(0) for part in np.array_split(take.pose, 4)])
            drifts.append((np.abs(quarters - take.pose.mean(0)) / take.pose.std(0)).mean(1))
            acceleration = np.abs(np.diff(take.pose, 2, axis=0)).sum(1)
            near = near_borders(config, len(take))
            borders.append(acceleration[near].mean())
            insides.append(acceleration[~near].mean())
        return OverTime(float(np.mean(borders)), float(np.mean(insides)), np.mean(drifts, axis=0).tolist())

    def __str__(self) -> str:
        quarters = " ".join(f"{drift:.2f}" for drift in self.drifts)
        return (
            f"accelerations {self.borders_deg:.3f} deg at window borders, {self.inside_deg:.3f} inside; "
            f"mean pose of each quarter {quarters} deviations from the whole's"
        )


def loudness(samples: Array) -> Array:
    """Root mean square of each frame (T,)."""
    frames = frame_count(len(samples))
    padded = np.pad(samples, (0, frames * SAMPLES_PER_FRAME - len(samples)))
    rms: Array = np.sqrt((padded.reshape(frames, SAMPLES_PER_FRAME) ** 2).mean(1))
    return rms


def liveliness(pose: Array, level: Array) -> float | None:
    """Mean angular speed in speech over that in silence; None where there is too little of either."""
    length = min(len(pose), len(level))
    smooth = np.convolve(level, np.ones(PAUSE_FRAMES) / PAUSE_FRAMES, "same")[:length]
    speed = np.abs(np.gradient(pose[:length], axis=0)).sum(1)
    loud = float(np.percentile(level, 90))
    speech, silence = speed[smooth > SPEECH * loud], speed[smooth < SILENCE * loud]
    return float(speech.mean() / silence.mean()) if min(len(speech), len(silence)) >= LEAST_FRAMES else None


def speech_and_silence(pipeline: TalkingPortraitPipeline, data: Path) -> list[tuple[str, float, float]]:
    """Name, real and sampled liveliness of every film that has both speech and silence."""
    rows = []
    for film in real_films(data, ("train", "val")):
        samples = np.concatenate(list(read_sound(film.sound)))
        level = loudness(samples)
        real = in_time(
            np.concatenate([motion.pose for motion in pipeline.engine.track(read_video(film.path))]), film.lag_frames
        )
        lively = liveliness(real, level)
        if lively is not None:
            takes = sample(pipeline.engine.speech, first_frame(film, pipeline, crop=True), samples, SEEDS)
            ours = [liveliness(take.pose, level) for take in takes]
            rows.append((film.path.name, lively, float(np.mean([value for value in ours if value is not None]))))
    return rows


def follows_loudness(speech: Speech, portrait: EncodedPortrait, samples: Array) -> float:
    """Correlation of the mouth's opening with the logarithm of loudness, at lag 0."""
    (take,) = sample(speech, portrait, samples, seeds=1)
    upper, lower = LIP_PAIRS[0]
    spreads = FaceModel.load().spreads
    gap = take.expression[..., 1] @ (spreads[lower] - spreads[upper])
    return correlation(gap, np.log(loudness(samples) + 1e-3))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="folder with clips.csv")
    parser.add_argument("--voices", type=Path, help="folder of sounds")
    options = parser.parse_args()
    pipeline = TalkingPortraitPipeline.mesh()
    speech, steady = pipeline.engine.speech, pipeline.engine.speech.motion_model
    assert isinstance(steady, SteadyModel)
    assert isinstance(steady.model, MotionModel)
    voices = [np.concatenate(list(read_sound(path))) for path in sorted(EXAMPLES.glob("*.wav"))]
    minute = np.resize(np.concatenate(voices), MINUTE_S * SAMPLE_RATE_HZ)
    for seed, name in enumerate(PORTRAITS):
        portrait = pipeline.portrait(read_image(EXAMPLES / name), crop=True)
        print(f"{name}: {blinks(pipeline, portrait, minute, seed)}")
        print(f"{name}: {OverTime.of(sample(speech, portrait, minute, SEEDS), steady.model.config)}", flush=True)
    if options.films:
        rows = speech_and_silence(pipeline, options.films)
        for name, real, ours in rows:
            print(f"{name}: head speed in speech over silence, real {real:.2f}, sampled {ours:.2f}")
        real, ours = np.mean([row[1:] for row in rows], axis=0)
        print(f"mean of {len(rows)} films: real {real:.2f}, sampled {ours:.2f}, ratio {ours / real:.2f}")
    for path in sorted(options.voices.iterdir()) if options.voices else []:
        samples = np.concatenate(list(read_sound(path)))[: VOICE_S * SAMPLE_RATE_HZ]
        print(f"{path.name}: mouth follows loudness, r {follows_loudness(speech, portrait, samples):.2f}", flush=True)


if __name__ == "__main__":
    main()
