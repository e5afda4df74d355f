"""Read what moves a portrait: a sound, a driving film or a saved motion."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.apps.job import Job, is_template
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frame_count
from kdtalker.media.sound import read_sound

if TYPE_CHECKING:
    from kdtalker.core.protocols import Openings

_log = logging.getLogger(__name__)

LENGTH_TOLERANCE_S = 0.2  # a sound beside --motion may differ so much in length before a note is logged
KEPT_S = 60  # a sound of at most this length is decoded once and kept


@dataclass(frozen=True)
class DrivingInput:
    """Hold the driving input: the number of frames, the length of the sound (None: that of the frames) and its
    file, a saved motion, the eye and lip ratios of a template, and the speech of which motion is made: the chunks of a
    short sound, or an iterator that decodes it again."""

    frames: int
    sound_s: float | None
    sound: Path | None
    motion: Motion | None = None
    openings: Openings | None = None
    speech: Iterable[Array] | None = None


def open_driving_input(job: Job) -> DrivingInput:
    """Read what moves the portrait, far enough to know that it is valid. Raises InputError where it is not."""
    from kdtalker.media.video import probe_video

    if job.driving is not None:
        info = probe_video(job.driving)
        return DrivingInput(round(info.duration_s * FRAME_RATE_HZ), None, job.driving if info.has_sound else None)
    if job.pose_from is not None:
        probe_video(job.pose_from)
    samples, speech = _read_speech(job)
    if job.motion is None:
        return DrivingInput(frame_count(samples), samples / SAMPLE_RATE_HZ, job.audio, speech=speech)
    if is_template(job.motion):
        from kdtalker.renderers.liveportrait.template import read_template

        template = read_template(job.motion)
        _note_lengths(samples / SAMPLE_RATE_HZ, template.motion)
        return DrivingInput(len(template.motion), None, job.audio, template.motion, template.openings)
    motion = Motion.load(job.motion)
    if not len(motion):
        raise InputError(f"The motion '{job.motion}' has no frames.")
    _note_lengths(samples / SAMPLE_RATE_HZ, motion)
    return DrivingInput(len(motion), None, job.audio, motion)


def _read_speech(job: Job) -> tuple[int, Iterable[Array]]:
    """Decode the sound to count its samples; returns them too, to be decoded again where the sound is long."""
    if job.audio is None:
        return 0, ()
    samples, kept = 0, []
    for chunk in read_sound(job.audio, job.start, job.duration, report=True):
        samples += len(chunk)
        if samples <= KEPT_S * SAMPLE_RATE_HZ:
            kept.append(chunk)
    is_whole = samples <= KEPT_S * SAMPLE_RATE_HZ
    return samples, kept if is_whole else read_sound(job.audio, job.start, job.duration)


def _note_lengths(sound_s: float, motion: Motion) -> None:
    """Log a note if the sound beside a saved motion is shorter or longer than that."""
    film_s = len(motion) / FRAME_RATE_HZ
    if sound_s and abs(sound_s - film_s) > LENGTH_TOLERANCE_S:
        _log.warning(
            "The sound lasts %.1f s, the motion and so the film %.1f s; beside --motion a sound is only laid under it.",
            sound_s, film_s,
        )  # fmt: skip
