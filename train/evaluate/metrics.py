"""Define the metrics of videos, with definition, source, unit and direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.edits.lips import SHUT_THRESHOLD
from kdtalker.media.video import read_video
from train.evaluate.cpbd import cpbd
from train.evaluate.identity import identity_distance
from train.evaluate.tracked import TrackedVideo
from train.harness.curves import best_lag, correlation
from train.keypoints.validation import LIPS

LARGEST_OFFSET_FRAMES = 15  # A/V offsets from -15 to 15 frames are searched
BEAT_SIGMA_S = 3 / 60  # tolerance of beat alignment, sigma of its Gaussian: three of the paper's 60 frames a second
CLOSURE_TOLERANCE_FRAMES = 2  # closures of two videos match when they are at most so many frames apart
BLINK_THRESHOLD = 0.45  # eyes count as closed below this share of their median opening
BLINK_APART_FRAMES = 3  # closed frames at most so far apart belong to one blink
SEAM_RATIO, MIN_SEAM = 8.0, 0.02  # a seam exceeds so many median accelerations and so many outer-eye distances
PICTURE_EVERY = 5  # every fifth frame is compared pixel by pixel
FACE_BOXES, FACE_PX = 1.5, 256  # side of a face crop, in boxes around the landmarks and in px
FRAMES_A_MINUTE = 60 * FRAME_RATE_HZ


@dataclass(frozen=True)
class MetricSpec:
    """Describe a metric; `needs` names what it requires beside the video."""

    name: str
    unit: str
    better: str
    definition: str
    source: str
    needs: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Metric(MetricSpec):
    """Define a metric; compute(video, reference) returns None where it is undefined."""

    compute: Callable[[TrackedVideo, TrackedVideo | None], float | None]


def require_reference(
    metric: Callable[[TrackedVideo, TrackedVideo], float | None],
) -> Callable[[TrackedVideo, TrackedVideo | None], float | None]:
    """Make a metric None where there is no reference."""
    return lambda film, reference: None if reference is None else metric(film, reference)


def loudness_correlation(film: TrackedVideo, _: TrackedVideo | None) -> float | None:
    """Correlate mouth opening and log loudness at the best A/V offset; None for silence."""
    offset = loudness_offset(film, None)
    return None if offset is None else correlation(film.mouth, film.loudness, round(offset * FRAME_RATE_HZ / 1000))


def loudness_offset(film: TrackedVideo, _: TrackedVideo | None) -> float | None:
    """Find the A/V offset in ms, > 0 where the mouth is later than the sound; None for silence."""
    if not film.sound.any():
        return None
    return 1000 / FRAME_RATE_HZ * best_lag(film.mouth, film.loudness, LARGEST_OFFSET_FRAMES)


def head_diversity(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Compute the mean standard deviation of yaw, pitch and roll in degrees."""
    return float(film.pose.std(0).mean())


def head_speed(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Compute the mean angular speed of the head in degrees a second."""
    return float(np.abs(np.diff(film.pose, axis=0)).sum(1).mean()) * FRAME_RATE_HZ


def mean_jerk(pose: Array) -> float:
    """Compute the mean absolute third difference of a pose (T, 3)."""
    return float(np.abs(np.diff(pose, 3, axis=0)).mean())


def jitter(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Compute the mean jerk of the head pose in degrees."""
    return mean_jerk(film.pose) if len(film.pose) > 3 else 0.0


def seams(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Count jumps a minute: accelerations of the whole face far above the video's median."""
    eyes = np.linalg.norm(film.landmarks[:, 33, :2] - film.landmarks[:, 263, :2], axis=1)[1:-1, None]
    acceleration = np.abs(np.diff(film.landmarks[..., :2].mean(1), 2, axis=0) / eyes).max(1)
    is_jump = acceleration > max(SEAM_RATIO * float(np.median(acceleration)), MIN_SEAM)
    return float(count_runs(is_jump, 2) / len(film.landmarks) * FRAMES_A_MINUTE)


def blinks(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Count blinks a minute."""
    return (
        count_runs(film.eyes < BLINK_THRESHOLD * np.median(film.eyes), BLINK_APART_FRAMES)
        / len(film.eyes)
        * FRAMES_A_MINUTE
    )


def closures(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Count lip closures a minute."""
    return count_runs(film.mouth < SHUT_THRESHOLD, 1) / len(film.mouth) * FRAMES_A_MINUTE


def background(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Compute the mean change of the background between frames, of 255."""
    return float(film.corners.mean()) if len(film.corners) else 0.0


def identity(film: TrackedVideo, reference: TrackedVideo | None) -> float:
    """Compute the mean identity distance to the first frame, to the reference's where there is one."""
    known = (reference or film).embeddings[0]
    return float(np.mean([identity_distance(known, one) for one in film.embeddings[0 if reference else 1 :]] or [0.0]))


def beat_alignment(film: TrackedVideo, _: TrackedVideo | None) -> float | None:
    """Compute the alignment of beats of the sound with beats of the head; None where the sound has none."""
    beats_s = sound_beats_s(film.sound)
    return None if beats_s is None else alignment(head_beats_s(film.pose), beats_s)


def sound_beats_s(sound: Array) -> Array | None:
    """Detect the times of beats (N,) in s with librosa; None where there are none."""
    import librosa

    if not sound.any():
        return None
    beats: Array = librosa.beat.beat_track(y=sound, sr=SAMPLE_RATE_HZ, units="time")[1]
    return beats if len(beats) else None


def head_beats_s(pose: Array) -> NDArray[np.float64]:
    """Find the times (N,) in s of local minima of the head's angular speed."""
    speed = np.linalg.norm(np.diff(pose, axis=0), axis=1)
    speed = np.convolve(speed, np.ones(3) / 3, "same")
    is_lowest = (speed[1:-1] < speed[:-2]) & (speed[1:-1] <= speed[2:])
    return np.asarray((np.flatnonzero(is_lowest) + 1.5) / FRAME_RATE_HZ)


def alignment(head_s: NDArray[np.float64], beats_s: Array) -> float:
    """Compute the mean over beats of the sound of exp(-d²/2σ²), d the time to the nearest beat of the head."""
    apart_s = np.abs(np.asarray(beats_s)[:, None] - np.append(head_s, np.inf)[None]).min(1)
    return float(np.exp(-(apart_s**2) / (2 * BEAT_SIGMA_S**2)).mean())


def mouth_correlation(film: TrackedVideo, reference: TrackedVideo) -> float:
    """Correlate the mouth openings of both videos at lag 0."""
    return correlation(film.mouth, reference.mouth)


def mouth_offset(film: TrackedVideo, reference: TrackedVideo) -> float:
    """Find the lag in ms of the video's mouth behind the reference's."""
    return 1000 / FRAME_RATE_HZ * best_lag(film.mouth, reference.mouth, LARGEST_OFFSET_FRAMES)


def mouth_amplitude(film: TrackedVideo, reference: TrackedVideo) -> float:
    """Compute the ratio of the mouth openings' standard deviations."""
    return float(film.mouth.std() / max(reference.mouth.std(), 1e-6))


def closures_met(film: TrackedVideo, reference: TrackedVideo) -> float | None:
    """Compute the recall in % of the reference's lip closures, within two frames; None where it has none."""
    return closure_recall(film.mouth, reference.mouth)


def closure_recall(opening: Array, reference: Array) -> float | None:
    """Compute the share in % of the closures that begin in a reference's mouth opening (T,) and that another mouth
    (T',) meets within two frames; None where there are none."""
    is_shut = np.convolve(opening < SHUT_THRESHOLD, np.ones(2 * CLOSURE_TOLERANCE_FRAMES + 1), "same") > 0
    wanted = np.flatnonzero(np.diff(np.r_[False, reference < SHUT_THRESHOLD].astype(int)) == 1)
    wanted = wanted[wanted < len(is_shut)]
    return float(100 * is_shut[wanted].mean()) if len(wanted) else None


def landmark_distance(
    film: TrackedVideo, reference: TrackedVideo, vertices: tuple[int, ...] | slice = slice(None)
) -> float:
    """Compute the mean distance of frontal landmarks in % of the outer-eye distance (LMD)."""
    length = min(len(film.landmarks), len(reference.landmarks))
    ours, theirs = (one.unposed[1][:length][:, vertices, :2] for one in (film, reference))
    return float(100 * np.linalg.norm(ours - theirs, axis=-1).mean())


def lip_distance(film: TrackedVideo, reference: TrackedVideo) -> float:
    """Compute the mean distance of lip landmarks, less their mean point, in px of face crops of 256 px (LMD)."""
    length = min(len(film.landmarks), len(reference.landmarks))
    lips = []
    for points in (film.landmarks[:length, :, :2], reference.landmarks[:length, :, :2]):
        crop = FACE_BOXES * np.ptp(points, axis=1).max(1).mean()
        lips.append((points[:, LIPS] - points[:, LIPS].mean(1, keepdims=True)) * FACE_PX / crop)
    return float(np.linalg.norm(lips[0] - lips[1], axis=-1).mean())


def sharpness(film: TrackedVideo, _: TrackedVideo | None) -> float:
    """Compute the mean CPBD of one frame a second."""
    frames = itertools.islice(read_video(film.path), 0, None, FRAME_RATE_HZ)
    return float(np.mean([cpbd(frame) for frame in frames]))


def pixel_metrics(film: TrackedVideo, reference: TrackedVideo) -> Iterator[tuple[float, float]]:
    """Compute PSNR in dB and SSIM of every fifth pair of frames; nothing where their sizes differ."""
    from skimage.metrics import peak_signal_noise_ratio as psnr
    from skimage.metrics import structural_similarity as ssim

    for number, (one, other) in enumerate(zip(read_video(film.path), read_video(reference.path), strict=False)):
        if one.shape != other.shape:
            return
        if number % PICTURE_EVERY == 0:
            is_same = np.array_equal(one, other)
            psnr_db = 100.0 if is_same else psnr(other, one, data_range=255)  # type: ignore[no-untyped-call]
            yield psnr_db, ssim(other, one, channel_axis=2, data_range=255)  # type: ignore[no-untyped-call]


def mean_pixel_metric(column: int) -> Callable[[TrackedVideo, TrackedVideo], float | None]:
    """Make the metric that averages one column of `pixel_metrics`."""

    def mean_metric(film: TrackedVideo, reference: TrackedVideo) -> float | None:
        rows = [row[column] for row in pixel_metrics(film, reference)]
        return float(np.mean(rows)) if rows else None

    return mean_metric


def count_runs(is_true: NDArray[np.bool_], apart: int) -> int:
    """Count runs of True (T,); runs at most `apart` frames after the last True belong to it."""
    frames = np.flatnonzero(is_true)
    return int(len(frames) > 0) + int((np.diff(frames) > apart).sum())


# Sources of metrics without a paper.
OURS, FIELD = "this project", "common in the field"
METRICS = (
    Metric("sync r", "-1..1", "higher",
            "Pearson correlation of mouth opening and log loudness at the best offset", OURS, loudness_correlation),
    Metric("sync offset", "ms", "0",
            "by how much the mouth is later than the loudness, within 600 ms", OURS, loudness_offset),
    Metric("closures", "a minute", "like real",
            "how often the inner lips come nearer than 3 % of the outer-eye distance", OURS, closures),
    Metric("head diversity", "deg", "like real",
            "mean of the standard deviations of yaw, pitch and roll",
            "after SadTalker, arXiv 2211.12194 sec. 4.1, which takes Hopenet's features", head_diversity),
    Metric("head speed", "deg/s", "like real", "mean of |yaw'| + |pitch'| + |roll'|", OURS, head_speed),
    Metric("beat align", "0..1", "higher",
            "mean over librosa's beats of exp(-d²/2σ²), d to the nearest minimum of the head's speed, σ 50 ms",
            "Bailando, arXiv 2203.13055, as SadTalker takes it", beat_alignment),
    Metric("jitter", "deg", "lower", "mean size of the third differences of yaw, pitch and roll", OURS, jitter),
    Metric("seams", "a minute", "0",
            "accelerations of the face above 8 times the film's median and 2 % of the outer-eye distance", OURS, seams),
    Metric("blinks", "a minute", "like real", "lids below 45 % of the film's median opening", OURS, blinks),
    Metric("background", "of 255", "lower",
            "mean change from frame to frame in the two upper corners", OURS, background),
    Metric("identity", "distance", "lower",
            "mean distance of dlib's embeddings to the first frame, the reference's where there is one; 0.6 is "
            "another person", "dlib.net, face_recognition_model_v1", identity),
    Metric("CPBD", "0..1", "higher", "cumulative probability of blur detection, mean of one whole frame a second",
            "Narvekar and Karam 2011, IEEE TIP 20(9)", sharpness),
    Metric("mouth r", "-1..1", "higher", "Pearson correlation of both films' mouth openings at lag 0", OURS,
            require_reference(mouth_correlation), needs="a reference"),
    Metric("mouth offset", "ms", "0", "by how much the film's mouth is later than the reference's", OURS,
            require_reference(mouth_offset), needs="a reference"),
    Metric("mouth amplitude", "ratio", "1", "deviation of the mouth opening over the reference's", OURS,
            require_reference(mouth_amplitude), needs="a reference"),
    Metric("closures met", "%", "higher", "closures of the reference that the film has within two frames", OURS,
            require_reference(closures_met), needs="a reference"),
    Metric("F-LMD", "%", "lower",
            "mean distance of all landmarks, heads turned to the front, of the outer-eye distance", FIELD,
            require_reference(landmark_distance), needs="a reference"),
    Metric("M-LMD", "%", "lower", "the same of the lips", FIELD,
            require_reference(lambda film, reference: landmark_distance(film, reference, LIPS)), needs="a reference"),
    Metric("LMD", "px", "lower",
            "mean distance of the lips' landmarks, less their mean point in each frame, in face crops of 256 px",
            "Chen et al. 2018, arXiv 1803.10404", require_reference(lip_distance), needs="a reference"),
    Metric("PSNR", "dB", "higher", "every fifth frame, only of films of one size; 100 for the same picture",
            "scikit-image", require_reference(mean_pixel_metric(0)), needs="a reference"),
    Metric("SSIM", "0..1", "higher", "every fifth frame, only of films of one size", "scikit-image; Wang 2004",
            require_reference(mean_pixel_metric(1)), needs="a reference"),
)  # fmt: skip
