"""Read what moves a portrait: a sound, a driving film or a saved motion."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np

from kdtalker.apps.job import Job, is_template
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.motion import Motion
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frame_count
from kdtalker.media.sound import read_sound

if TYPE_CHECKING:
    from kdtalker.core.protocols import Openings

_log = logging.getLogger(__name__)

LENGTH_TOLERANCE_S = 0.2  # a sound beside --motion may differ so much in length before a note is logged
IN_MEMORY_S = 60  # a longer sound waits in a temporary file
_BYTES = 4  # of a sample


@dataclass(frozen=True)
class DrivingInput:
    """Hold the driving input: the number of frames, the length of the sound (None: that of the frames) and its
    file, a saved motion, the eye and lip ratios of a template, and the samples of which motion is made, to be read
    once."""

    frames: int
    sound_s: float | None
    sound: Path | None
    motion: Motion | None = None
    openings: Openings | None = None
    speech: Iterator[Array] | None = None


def open_driving_input(job: Job) -> DrivingInput:
    """Read what moves the portrait, far enough to know that it is valid. Raises InputError where it is not."""
    from kdtalker.media.video import probe_video

    if job.driving is not None:
        info = probe_video(job.driving)
        return DrivingInput(round(info.duration_s * FRAME_RATE_HZ), None, job.driving if info.has_sound else None)
    if job.pose_from is not None:
        probe_video(job.pose_from)
    if job.motion is None:
        samples, speech = _read_speech(job)
        return DrivingInput(frame_count(samples), samples / SAMPLE_RATE_HZ, job.audio, speech=speech)
    sound_s = sum(map(len, _decode(job))) / SAMPLE_RATE_HZ
    if is_template(job.motion):
        from kdtalker.renderers.liveportrait.template import read_template

        template = read_template(job.motion)
        _note_lengths(sound_s, template.motion)
        return DrivingInput(len(template.motion), None, job.audio, template.motion, template.openings)
    motion = Motion.load(job.motion)
    if not len(motion):
        raise InputError(f"The motion '{job.motion}' has no frames.")
    _note_lengths(sound_s, motion)
    return DrivingInput(len(motion), None, job.audio, motion)


def _decode(job: Job) -> Iterator[Array]:
    """Decode the sound of a job, if it has one."""
    return iter(()) if job.audio is None else read_sound(job.audio, job.start, job.duration, report=True)


def _read_speech(job: Job) -> tuple[int, Iterator[Array]]:
    """Decode the sound to count its samples; returns them too, to be read once. Raises OutputError where there is no
    room for those of a long sound."""
    samples = 0
    spool = SpooledTemporaryFile(_BYTES * IN_MEMORY_S * SAMPLE_RATE_HZ)  # noqa: SIM115 - _read_back closes it
    try:
        for chunk in _decode(job):
            with _explained(job):
                spool.write(chunk.data)
            samples += len(chunk)
        with _explained(job):
            spool.seek(0)  # writes what is left
    except BaseException:
        with suppress(OSError):
            spool.close()
        raise
    return samples, _read_back(spool)


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Raise OutputError where a temporary file cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"The samples of '{job.audio}' cannot be kept in the folder for temporary files ({error.strerror}); make "
            "room there, or let TMPDIR name another folder."
        ) from None


def _read_back(spool: IO[bytes]) -> Iterator[Array]:
    """Yield the samples of a temporary file, a second at a time and read-only, and remove it."""
    with spool:
        while content := spool.read(_BYTES * SAMPLE_RATE_HZ):
            yield np.frombuffer(content, np.float32)


def _note_lengths(sound_s: float, motion: Motion) -> None:
    """Log a note if the sound beside a saved motion is shorter or longer than that."""
    film_s = len(motion) / FRAME_RATE_HZ
    if sound_s and abs(sound_s - film_s) > LENGTH_TOLERANCE_S:
        _log.warning(
            "The sound lasts %.1f s, the motion and so the film %.1f s; beside --motion a sound is only laid under it.",
            sound_s, film_s,
        )  # fmt: skip
