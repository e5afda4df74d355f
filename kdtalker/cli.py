"""The command line. Whatever goes wrong for a person ends in one line on stderr and the exit code of its error."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frame_count, read_sound
from kdtalker.errors import InputError, KDTalkerError, OutputError
from kdtalker.job import FOLLOW, WIDEST, Job, is_template, parse
from kdtalker.motion import Array, Motion

if TYPE_CHECKING:
    from kdtalker.liveportrait.openings import Openings
    from kdtalker.pipeline import Edit, EncodedPortrait, Record, TalkingPortraitPipeline
    from kdtalker.renderer import Image

Load = Callable[[Job], "TalkingPortraitPipeline"]


def load_engine(job: Job) -> TalkingPortraitPipeline:
    """The engine that the job names."""
    from kdtalker.pipeline import TalkingPortraitPipeline

    if job.engine == "mesh":
        import torch

        torch.set_num_threads(1)  # small networks beside a warp and ffmpeg: more would wait for one another
        return TalkingPortraitPipeline.mesh(job.checkpoint)
    from kdtalker.weights import LIVEPORTRAIT, SPEECH, require

    is_mute = job.motion is not None or job.driving is not None
    has_own_speech = is_mute or job.checkpoint is not None
    require([name for name in LIVEPORTRAIT if not (has_own_speech and name in SPEECH)], job.weights)
    return TalkingPortraitPipeline.liveportrait(job.device, job.precision, job.weights, job.checkpoint, job.compile)


def main(arguments: Sequence[str] | None = None, load: Load = load_engine) -> int:
    """Do what the arguments (default: the process's own) ask for; returns the exit code."""
    began = time.perf_counter()
    words = sys.argv[1:] if arguments is None else arguments
    with _only_our_words_on_stderr():
        try:
            line = _weights(words[1:]) if words[:1] == ["weights"] else _make(parse(words), load, began)
        except KDTalkerError as error:
            return _fail(str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            return _fail(str(stop) or "interrupted, nothing was written.", 128 + signal.SIGINT)
    try:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        print(line, flush=True)  # noqa: T201
    except BrokenPipeError:  # nobody reads; the film is there all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _weights(words: Sequence[str]) -> str:
    from kdtalker.weights_command import run

    return run(words)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"kdtalker: {' '.join(message.split())}\n")
    return code


@contextmanager
def _only_our_words_on_stderr() -> Iterator[None]:
    """Libraries in C write notes of their own there (LiteRT, libjpeg); for a while those go nowhere."""
    original = sys.stderr
    real = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace") as ours:
        os.dup2(silent, 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = original
            os.dup2(real, 2)
            os.close(real)
            os.close(silent)


@dataclass(frozen=True)
class Drive:
    """What moves the portrait, read far enough to know that it is good: how many frames it makes, how long its sound
    lasts (None: as long as the frames), the file of that sound, a saved motion where that was given, and where it
    tells that, how far eyes and lips are open in it."""

    frames: int
    sound_s: float | None
    sound: Path | None
    motion: Motion | None = None
    openings: Openings | None = None


def _make(job: Job, load: Load, began: float) -> str:
    """Speak the text where that is the voice, then make the film."""
    if job.line is None:
        return _film(job, load, began)
    from kdtalker.speaker import speak

    with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
        spoken = Path(folder) / "voice.wav"
        speak(job.line, spoken)
        return _film(replace(job, audio=spoken), load, began)


def _film(job: Job, load: Load, began: float) -> str:
    """Make the film; cheap checks come before the models are loaded. Returns the line that tells about it."""
    from tqdm import tqdm

    from kdtalker.video import VideoWriter, read_image

    image = read_image(job.image)
    if job.background is not None:
        from kdtalker.backdrop import lay_behind

        behind = read_image(job.background) if isinstance(job.background, Path) else job.background
        image = lay_behind(image, behind)
    drive = _open(job)
    pipeline = load(job)
    framing = drive.motion.framing if drive.motion is not None else "driving" if job.driving else "speech"
    portrait = pipeline.portrait(image, face=job.face, box=job.box, crop=job.crop, framing=framing)
    recorded: list[Motion] = []
    record = recorded.append if job.save_motion else None
    frames = _frames(pipeline, portrait, job, drive, record)
    first = next(frames)
    height, width = first.shape[:2]
    count = 0
    with (
        tqdm(total=drive.frames, unit="frame", disable=None, leave=False, file=sys.stderr) as bar,
        VideoWriter(
            job.output, width, height, sound=drive.sound, crf=job.crf, duration_s=drive.sound_s, sound_start_s=job.start
        ) as film,
    ):
        for count, frame in enumerate(chain([first], frames), 1):  # noqa: B007
            film.write(frame)
            bar.update()
    if job.save_motion:
        _save(recorded, job.save_motion)
    return _summary(count, time.perf_counter() - began, job.output)


def _open(job: Job) -> Drive:
    from kdtalker.video import film_info

    if job.driving is not None:
        info = film_info(job.driving)
        return Drive(round(info.duration_s * FRAME_RATE_HZ), None, job.driving if info.has_sound else None)
    if job.pose_from is not None:
        film_info(job.pose_from)
    samples = sum(map(len, read_sound(job.audio, job.start, job.duration))) if job.audio is not None else 0
    if job.motion is None:
        return Drive(frame_count(samples), samples / SAMPLE_RATE_HZ, job.audio)
    if is_template(job.motion):
        from kdtalker.liveportrait.template import read_template

        template = read_template(job.motion)
        return Drive(len(template.motion), None, job.audio, template.motion, template.openings)
    motion = Motion.load(job.motion)
    if not len(motion):
        raise InputError(f"The motion '{job.motion}' has no frames.")
    return Drive(len(motion), None, job.audio, motion)


def _frames(
    pipeline: TalkingPortraitPipeline, portrait: EncodedPortrait, job: Job, drive: Drive, record: Record | None
) -> Iterator[Image]:
    from kdtalker.video import VideoFrames

    edit = _retargeting(pipeline, portrait, job, drive)
    if drive.motion is not None:
        return pipeline.reenact(portrait, [drive.motion], job.options, record, edit)
    if job.driving is not None:
        return pipeline.reenact(portrait, pipeline.track(VideoFrames(job.driving)), job.options, record, edit)
    assert job.audio is not None
    sound = read_sound(job.audio, job.start, job.duration)
    head = None if job.pose_from is None else pipeline.track(VideoFrames(job.pose_from))
    return pipeline.animate(portrait, sound, job.options, record, edit=edit, head=head)


def _retargeting(pipeline: TalkingPortraitPipeline, portrait: EncodedPortrait, job: Job, drive: Drive) -> Edit | None:
    """The edit that opens eyes and lips as was asked for; a driving film is looked through for it beforehand."""
    from kdtalker.video import read_film

    asked = job.retarget_eyes, job.retarget_lips
    if asked == (None, None):
        return None
    assert pipeline.retargeting is not None and pipeline.measure is not None  # of this engine alone, as was checked
    openings = drive.openings
    if job.driving is not None and FOLLOW in asked:
        openings = pipeline.measure(read_film(job.driving))
    eyes, lips = (openings.eyes, openings.lips) if openings else (None, None)
    return pipeline.retargeting(portrait.source, _wanted(asked[0], eyes, "eyes"), _wanted(asked[1], lips, "lips"))


def _wanted(asked: float | str | None, measured: Array | None, part: str) -> Array | float | None:
    if not isinstance(asked, str):
        return asked
    if measured is None:
        raise InputError(
            f"The motion template does not tell how far the {part} are open; give a number from 0 to {WIDEST}."
        )
    return measured


def _save(recorded: list[Motion], path: Path) -> None:
    try:
        Motion.concatenate(recorded).save(path)
    except OSError as error:
        raise OutputError(f"The motion could not be written to '{path}': {error.strerror}.") from None


def _summary(frames: int, took_s: float, output: Path) -> str:
    film_s = frames / FRAME_RATE_HZ
    speed = film_s / took_s
    return f"{frames} frames, {film_s:.2f} s of film made in {took_s:.1f} s ({speed:.2f} x real time): {output}"
