"""The one table of measures: what each is, where it comes from, in what unit, and which way is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.media.video import read_video
from train.evaluate.identity import identity_distance
from train.evaluate.tracked import SeenFilm
from train.harness.curves import best_lag, correlation
from train.keypoints.validation import LIPS

LARGEST_OFFSET_FRAMES = 15
BEAT_SIGMA_S = 0.1
SHUT, SHUT_NEAR_FRAMES = 0.03, 2  # of the outer-eye distance; by how many frames two closures may be apart
BLINK, BLINK_APART_FRAMES = 0.45, 3  # of the median eye opening
SEAM, LEAST_SEAM = 8.0, 0.02  # a jump: so many typical accelerations, and at least so many outer-eye distances
PICTURE_EVERY = 5  # frames that are compared pixel by pixel
MINUTE = 60 * FRAME_RATE_HZ


@dataclass(frozen=True)
class Told:
    """What a column of figures is, for people; `needs` says what there must be beside the film."""

    name: str
    unit: str
    better: str
    definition: str
    source: str
    needs: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Measure(Told):
    """One column. of(film, reference) gives None where it cannot be told."""

    of: Callable[[SeenFilm, SeenFilm | None], float | None]


def with_reference(measure: Callable[[SeenFilm, SeenFilm], float | None]) -> Callable[..., float | None]:
    return lambda film, reference: None if reference is None else measure(film, reference)


def loudness_correlation(film: SeenFilm, _: SeenFilm | None) -> float | None:
    """At the best offset."""
    offset = loudness_offset(film, None)
    return None if offset is None else correlation(film.mouth, film.loudness, round(offset * FRAME_RATE_HZ / 1000))


def loudness_offset(film: SeenFilm, _: SeenFilm | None) -> float | None:
    """ms by which the mouth is later than the sound."""
    if not film.sound.any():
        return None
    return 1000 / FRAME_RATE_HZ * best_lag(film.mouth, film.loudness, LARGEST_OFFSET_FRAMES)


def head_diversity(film: SeenFilm, _: SeenFilm | None) -> float:
    return float(film.pose.std(0).mean())


def head_speed(film: SeenFilm, _: SeenFilm | None) -> float:
    """Degrees a second."""
    return float(np.abs(np.diff(film.pose, axis=0)).sum(1).mean()) * FRAME_RATE_HZ


def jitter(film: SeenFilm, _: SeenFilm | None) -> float:
    return float(np.abs(np.diff(film.pose, 3, axis=0)).mean()) if len(film.pose) > 3 else 0.0


def seams(film: SeenFilm, _: SeenFilm | None) -> float:
    """Jumps a minute: accelerations of the whole face far above what is usual in this film."""
    eyes = np.linalg.norm(film.landmarks[:, 33, :2] - film.landmarks[:, 263, :2], axis=1)[1:-1, None]
    acceleration = np.abs(np.diff(film.landmarks[..., :2].mean(1), 2, axis=0) / eyes).max(1)
    is_jump = acceleration > max(SEAM * float(np.median(acceleration)), LEAST_SEAM)
    return float(runs(is_jump, 2) / len(film.landmarks) * MINUTE)


def blinks(film: SeenFilm, _: SeenFilm | None) -> float:
    return runs(film.eyes < BLINK * np.median(film.eyes), BLINK_APART_FRAMES) / len(film.eyes) * MINUTE


def closures(film: SeenFilm, _: SeenFilm | None) -> float:
    return runs(film.mouth < SHUT, 1) / len(film.mouth) * MINUTE


def background(film: SeenFilm, _: SeenFilm | None) -> float:
    return float(film.corners.mean()) if len(film.corners) else 0.0


def identity(film: SeenFilm, reference: SeenFilm | None) -> float:
    """Mean over frames of the distance to the first frame, of the reference where there is one."""
    known = (reference or film).embeddings[0]
    return float(np.mean([identity_distance(known, one) for one in film.embeddings[0 if reference else 1 :]] or [0.0]))


def beat_alignment(film: SeenFilm, _: SeenFilm | None) -> float | None:
    beats_s = sound_beats_s(film.sound)
    return None if beats_s is None else alignment(head_beats_s(film.pose), beats_s)


def sound_beats_s(sound: Array) -> Array | None:
    """Times of the beats that librosa hears; None where it hears none."""
    import librosa

    if not sound.any():
        return None
    beats: Array = librosa.beat.beat_track(y=sound, sr=SAMPLE_RATE_HZ, units="time")[1]
    return beats if len(beats) else None


def head_beats_s(pose: Array) -> Array:
    """Times of the local minima of the head's angular speed, between frames."""
    speed = np.linalg.norm(np.diff(pose, axis=0), axis=1)
    speed = np.convolve(speed, np.ones(3) / 3, "same")
    is_lowest = (speed[1:-1] < speed[:-2]) & (speed[1:-1] <= speed[2:])
    times: Array = (np.flatnonzero(is_lowest) + 1.5) / FRAME_RATE_HZ
    return times


def alignment(head_s: Array, beats_s: Array) -> float | None:
    """Mean over the head's beats of exp(-d²/2σ²), d the time to the nearest beat of the sound."""
    if not len(head_s):
        return None
    nearest = np.abs(np.asarray(head_s)[:, None] - np.asarray(beats_s)[None]).min(1)
    return float(np.exp(-(nearest**2) / (2 * BEAT_SIGMA_S**2)).mean())


def mouth_correlation(film: SeenFilm, reference: SeenFilm) -> float:
    return correlation(film.mouth, reference.mouth)


def mouth_offset(film: SeenFilm, reference: SeenFilm) -> float:
    return 1000 / FRAME_RATE_HZ * best_lag(film.mouth, reference.mouth, LARGEST_OFFSET_FRAMES)


def mouth_amplitude(film: SeenFilm, reference: SeenFilm) -> float:
    return float(film.mouth.std() / max(reference.mouth.std(), 1e-6))


def closures_met(film: SeenFilm, reference: SeenFilm) -> float | None:
    """% of the reference's closures that the film has within two frames; None where the reference has none."""
    is_shut = np.convolve(film.mouth < SHUT, np.ones(2 * SHUT_NEAR_FRAMES + 1), "same") > 0
    wanted = np.flatnonzero(np.diff(np.r_[False, reference.mouth < SHUT].astype(int)) == 1)
    wanted = wanted[wanted < len(is_shut)]
    return float(100 * is_shut[wanted].mean()) if len(wanted) else None


def landmark_distance(film: SeenFilm, reference: SeenFilm, vertices: tuple[int, ...] | slice = slice(None)) -> float:
    """% of the outer-eye distance, heads turned to the front."""
    length = min(len(film.landmarks), len(reference.landmarks))
    ours, theirs = (one.unposed[1][:length][:, vertices, :2] for one in (film, reference))
    return float(100 * np.linalg.norm(ours - theirs, axis=-1).mean())


def pixel_figures(film: SeenFilm, reference: SeenFilm) -> Iterator[tuple[float, float]]:
    """PSNR in dB and SSIM of every fifth pair of frames; nothing where their sizes differ."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    for number, (one, other) in enumerate(zip(read_video(film.path), read_video(reference.path), strict=False)):
        if one.shape != other.shape:
            return
        if number % PICTURE_EVERY == 0:
            is_same = np.array_equal(one, other)
            decibels = 100.0 if is_same else peak_signal_noise_ratio(other, one, data_range=255)
            yield decibels, structural_similarity(other, one, channel_axis=2, data_range=255)


def mean_pixel_figure(column: int) -> Callable[[SeenFilm, SeenFilm], float | None]:
    def measured(film: SeenFilm, reference: SeenFilm) -> float | None:
        rows = [row[column] for row in pixel_figures(film, reference)]
        return float(np.mean(rows)) if rows else None

    return measured


def runs(is_true: Array, apart: int) -> int:
    """How often something happens: stretches of True, those that are fewer than `apart` frames from the last counted
    with it."""
    frames = np.flatnonzero(is_true)
    return int(len(frames) > 0) + int((np.diff(frames) > apart).sum())


OURS, FIELD = "this project", "common in the field"
MEASURES = (
    Measure("sync r", "-1..1", "higher",
            "Pearson correlation of mouth opening and log loudness at the best offset", OURS, loudness_correlation),
    Measure("sync offset", "ms", "0",
            "by how much the mouth is later than the loudness, within 600 ms", OURS, loudness_offset),
    Measure("closures", "a minute", "like real",
            "how often the inner lips come nearer than 3 % of the outer-eye distance", OURS, closures),
    Measure("head diversity", "deg", "like real",
            "mean of the standard deviations of yaw, pitch and roll", "KDTalker, arXiv 2503.12963", head_diversity),
    Measure("head speed", "deg/s", "like real", "mean of |yaw'| + |pitch'| + |roll'|", OURS, head_speed),
    Measure("beat align", "0..1", "higher",
            "mean over minima of the head's speed of exp(-d²/2σ²), d to librosa's nearest beat, σ 0.1 s",
            "AIST++, arXiv 2101.08779", beat_alignment),
    Measure("jitter", "deg", "lower", "mean size of the third differences of yaw, pitch and roll", OURS, jitter),
    Measure("seams", "a minute", "0",
            "accelerations of the face above 8 times the film's median and 2 % of the outer-eye distance", OURS, seams),
    Measure("blinks", "a minute", "like real", "lids below 45 % of the film's median opening", OURS, blinks),
    Measure("background", "of 255", "lower",
            "mean change from frame to frame in the two upper corners", OURS, background),
    Measure("identity", "distance", "lower",
            "mean distance of dlib's embeddings to the first frame, the reference's where there is one; 0.6 is "
            "another person", "dlib.net, face_recognition_model_v1", identity),
    Measure("mouth r", "-1..1", "higher", "Pearson correlation of both films' mouth openings at lag 0", OURS,
            with_reference(mouth_correlation), needs="a reference"),
    Measure("mouth offset", "ms", "0", "by how much the film's mouth is later than the reference's", OURS,
            with_reference(mouth_offset), needs="a reference"),
    Measure("mouth amplitude", "ratio", "1", "deviation of the mouth opening over the reference's", OURS,
            with_reference(mouth_amplitude), needs="a reference"),
    Measure("closures met", "%", "higher", "closures of the reference that the film has within two frames", OURS,
            with_reference(closures_met), needs="a reference"),
    Measure("F-LMD", "%", "lower",
            "mean distance of all landmarks, heads turned to the front, of the outer-eye distance", FIELD,
            with_reference(landmark_distance), needs="a reference"),
    Measure("M-LMD", "%", "lower", "the same of the lips", FIELD,
            with_reference(lambda film, reference: landmark_distance(film, reference, LIPS)), needs="a reference"),
    Measure("PSNR", "dB", "higher", "every fifth frame, only of films of one size; 100 for the same picture",
            "scikit-image", with_reference(mean_pixel_figure(0)), needs="a reference"),
    Measure("SSIM", "0..1", "higher", "every fifth frame, only of films of one size", "scikit-image; Wang 2004",
            with_reference(mean_pixel_figure(1)), needs="a reference"),
)  # fmt: skip
