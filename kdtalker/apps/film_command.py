"""Make the film of a job: check the inputs, load the networks, write the frames."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtalker.apps.arguments import FOLLOW, WIDEST
from kdtalker.apps.driving_input import DrivingInput, open_driving_input
from kdtalker.apps.job import Job
from kdtalker.apps.progress import Progress
from kdtalker.core.allocator import return_freed_memory
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import AtomicFile, commit_together
from kdtalker.core.motion import Motion
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.core.signals import Interruption
from kdtalker.core.threads import Future, Prefetch, set_threads
from kdtalker.diffusion.header import check_checkpoint

if TYPE_CHECKING:
    from kdtalker.core.arrays import Image
    from kdtalker.core.protocols import Edit, EncodedPortrait, Record
    from kdtalker.pipeline import TalkingPortraitPipeline

    Load = Callable[[Job], TalkingPortraitPipeline[Any]]

FRAMES_AHEAD = 2  # of the encoder, that are drawn meanwhile
PIECE_FRAMES = 250  # a saved motion is drawn in pieces of this length, so that memory does not grow with it
LEAST_ADDRESS_SPACE_GB = 2.2  # with less, torch and OpenBLAS abort the process without a message


def load_engine(job: Job) -> TalkingPortraitPipeline[Any]:
    """Load the engine that the job names. Raises InputError for missing weights, OutputError for too little memory."""
    from kdtalker.weights.find import require
    from kdtalker.weights.table import LIVEPORTRAIT, SPEECH

    if job.engine == "liveportrait":
        is_mute = job.motion is not None or job.driving is not None
        has_own_speech = is_mute or job.checkpoint is not None
        require([name for name in LIVEPORTRAIT if not (has_own_speech and name in SPEECH)], job.weights)
    _check_address_space()
    if not job.compile:  # torch's compiler would leave an empty folder among the temporary files
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    if job.engine == "mesh":  # of a denoiser that runs in torch, beside a warp and ffmpeg: threads wait for one another
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    import cv2

    from kdtalker.pipeline import TalkingPortraitPipeline

    if job.engine == "mesh":
        cv2.setNumThreads(1)
        return TalkingPortraitPipeline.mesh(job.checkpoint, job.personal)
    return TalkingPortraitPipeline.liveportrait(job.device, job.precision, job.weights, job.checkpoint, job.compile)


def _check_address_space() -> None:
    """Raise OutputError where `ulimit -v` leaves too little for the libraries."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE_GB * 1e9:
        raise OutputError(
            f"The memory of this process is limited to {limit / 1e9:.1f} GB (ulimit -v), wanted at least "
            f"{LEAST_ADDRESS_SPACE_GB} GB; lift the limit."
        )


def make_film(job: Job, load: Load) -> str:
    """Make the film of a job, speaking its text first if there is one. Returns a line that sums it up."""
    began, progress = time.perf_counter(), Progress(quiet=job.quiet)
    set_threads(job.threads)
    if job.checkpoint is not None:
        check_checkpoint(job.checkpoint, job.engine, job.personal)  # engines are named after their keypoint spaces
    with spoken(job, progress) as voiced:
        count = write_film(*_prepare(voiced, load, progress), voiced, progress)
    return _summary(count, time.perf_counter() - began, job.output)


@contextmanager
def spoken(job: Job, progress: Progress) -> Iterator[Job]:
    """Speak the text of a job, if it has one: yield the job with that sound, which is removed at the end."""
    if job.line is None:
        yield job
        return
    from kdtalker.tts.speak import speak

    progress.stage("speaking the text")
    with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
        sound = Path(folder) / "voice.wav"
        speak(job.line, sound)
        yield replace(job, audio=sound)


def write_film(
    pipeline: TalkingPortraitPipeline[Any],
    portrait: EncodedPortrait[Any],
    driving: DrivingInput,
    job: Job,
    progress: Progress,
    *,
    is_whole: Callable[[Path, int], object] | None = None,
) -> int:
    """Write the film of an encoded portrait, and the motion if that is to be saved; return the number of frames.

    is_whole: called with the film under its temporary name and its number of frames, before it takes its name."""
    from kdtalker.media.video_writer import VideoWriter

    recorded: list[Motion] = []
    made = _frames(pipeline, portrait, job, driving, recorded.append if job.save_motion else None)
    progress.stage(f"making {_length(driving.frames)}")
    count = 0
    with ExitStack() as files:
        frames = files.enter_context(Prefetch(made, FRAMES_AHEAD))
        first = next(frames)
        height, width = first.shape[:2]
        saved = files.enter_context(AtomicFile(job.save_motion)) if job.save_motion else None
        film = files.enter_context(
            VideoWriter(
                job.output, width, height,
                sound=driving.sound, crf=job.crf, duration_s=driving.sound_s, sound_start_s=job.start,
                alpha=job.alpha,
            )
        )  # fmt: skip
        for count, frame in enumerate(progress.count(chain([first], frames), driving.frames), 1):  # noqa: B007
            film.write(frame)
        film.finish()
        if saved is not None:
            Motion.concatenate(recorded).write(saved)
        if is_whole is not None:
            is_whole(film.file.partial, count)
        try:
            commit_together([file for file in (saved, film.file) if file is not None])
        except Interruption:
            if not film.file.is_committed:
                raise
    return count


def _prepare(
    job: Job, load: Load, progress: Progress
) -> tuple[TalkingPortraitPipeline[Any], EncodedPortrait[Any], DrivingInput]:
    """Read the inputs, load the networks and encode the portrait. A thread loads what is needed next: the mesh engine,
    whose networks are there at once, while the inputs are read, and the speech models while the face is found."""
    loading = Future(partial(load, job)) if job.engine == "mesh" else None
    progress.stage("reading the portrait and what moves it")
    image, driving = read_portrait(job), read_driving(job)
    progress.stage("loading the networks")
    pipeline = loading.result() if loading else load(job)
    warming = Future(partial(_warm_up, pipeline)) if driving.speech is not None else None
    progress.stage("finding the face")
    portrait = encode_portrait(pipeline, image, job, find_framing(job, driving))
    if warming:
        warming.result()
    return_freed_memory()  # copies of weights
    return pipeline, portrait, driving


def _warm_up(pipeline: TalkingPortraitPipeline[Any]) -> None:
    """Load the speech models and run them once."""
    pipeline.engine.speech.warm_up()


def find_framing(job: Job, driving: DrivingInput) -> str:
    """Find the framing that a portrait is encoded with, see `TalkingPortraitPipeline.portrait`."""
    return driving.motion.framing if driving.motion is not None else "driving" if job.driving else "speech"


def encode_portrait(
    pipeline: TalkingPortraitPipeline[Any], image: Image, job: Job, framing: str
) -> EncodedPortrait[Any]:
    """Find and encode the face that a job names. Raises InputError where there is none."""
    return pipeline.portrait(
        image, face=job.face, box=job.box, crop=job.crop, alpha=job.alpha, max_side=job.max_side, framing=framing
    )


def read_portrait(job: Job) -> Image:
    """Read the picture of a job, before its background. Raises InputError where they are not valid."""
    from kdtalker.media.picture import read_image

    image = read_image(job.image)
    behind = read_image(job.background) if isinstance(job.background, Path) else job.background
    if behind is None:
        return image
    from kdtalker.face.background import replace_background

    return replace_background(image, behind)


def read_driving(job: Job) -> DrivingInput:
    """Read what moves the portrait of a job. Raises InputError where it is not valid, or made for another engine."""
    driving = open_driving_input(job)
    if driving.motion is not None:
        driving.motion.require_space(job.engine)
    return driving


def _frames(
    pipeline: TalkingPortraitPipeline[Any],
    portrait: EncodedPortrait[Any],
    job: Job,
    driving: DrivingInput,
    record: Record | None,
) -> Iterator[Image]:
    from kdtalker.media.video import VideoFrames

    edit = _retargeting(pipeline, portrait, job, driving)
    if driving.motion is not None:
        starts = range(0, len(driving.motion), PIECE_FRAMES)
        pieces = (driving.motion[start : start + PIECE_FRAMES] for start in starts)
        return pipeline.reenact(portrait, pieces, job.options, record, edit)
    if job.driving is not None:
        motion = pipeline.engine.track(VideoFrames(job.driving))
        return pipeline.reenact(portrait, motion, job.options, record, edit)
    assert driving.speech is not None
    head = None if job.pose_from is None else pipeline.engine.track(VideoFrames(job.pose_from))
    return pipeline.animate(portrait, driving.speech, job.options, record, edit=edit, head=head)


def _retargeting(
    pipeline: TalkingPortraitPipeline[Any], portrait: EncodedPortrait[Any], job: Job, driving: DrivingInput
) -> Edit | None:
    """Build the retargeting edit, if one is asked for; this tracks a driving video once beforehand."""
    from kdtalker.media.video import read_video

    asked = job.retarget_eyes, job.retarget_lips
    if asked == (None, None):
        return None
    openings = driving.openings
    if job.driving is not None and FOLLOW in asked:
        openings = pipeline.engine.track_openings(read_video(job.driving))
    eyes, lips = (openings.eyes, openings.lips) if openings else (None, None)
    return pipeline.engine.retarget(portrait.source, _opening(asked[0], eyes, "eyes"), _opening(asked[1], lips, "lips"))


def _opening(asked: float | str | None, measured: Array | None, part: str) -> Array | float | None:
    """Choose the ratio that is asked for, or those that were measured. Raises InputError where there are none."""
    if not isinstance(asked, str):
        return asked
    if measured is None:
        raise InputError(
            f"The motion template does not tell how far the {part} are open; give a number from 0 to {WIDEST}."
        )
    return measured


def _length(frames: int) -> str:
    """Describe how long a film will be."""
    minutes, seconds = divmod(frames / FRAME_RATE_HZ, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (hours + minutes > 0)
    return f"{frames:,} frame{'s' * (frames != 1)}, {' '.join([*parts, f'{seconds:.1f} s'])} of film"


def _summary(frames: int, took_s: float, output: Path) -> str:
    film_s = frames / FRAME_RATE_HZ
    speed = film_s / took_s
    plural = "s" * (frames != 1)
    return f"{frames} frame{plural}, {film_s:.2f} s of film made in {took_s:.1f} s ({speed:.2f} x real time): {output}"
