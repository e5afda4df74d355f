"""Parse and check the arguments of the film command, without reading a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtalker.apps.arguments import FOLLOW, Backdrop, Parser, film_parser
from kdtalker.core.errors import InputError
from kdtalker.core.files import check_file, check_target, is_folder
from kdtalker.core.options import Options, controls
from kdtalker.core.threads import MOST_USEFUL
from kdtalker.diffusion.causal.personal import check_share
from kdtalker.media.video_writer import choose_encoding
from kdtalker.tts.line import DEFAULT_VOICE, Line
from kdtalker.weights.find import locate
from kdtalker.weights.table import TABLE

SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 256, 4096  # that --max-side takes; the longest side of H.264 level 5.1

# arguments that only --engine liveportrait takes
PUBLISHED_ONLY = ("device", "precision", "compile", "weights", "retarget_eyes", "retarget_lips")


@dataclass(frozen=True)
class Job:
    """Hold the checked arguments of the film command."""

    image: Path
    output: Path
    background: Backdrop | None
    alpha: bool
    audio: Path | None
    line: Line | None
    start: float
    duration: float | None
    pose_from: Path | None
    driving: Path | None
    motion: Path | None
    save_motion: Path | None
    face: int | None
    box: tuple[float, float, float, float] | None
    crop: bool
    max_side: int
    crf: int
    engine: str
    device: str
    precision: str
    compile: bool
    weights: Path | None
    retarget_eyes: float | str | None
    retarget_lips: float | str | None
    checkpoint: Path | None
    personal: float | None
    threads: int
    quiet: bool
    options: Options


def parse(arguments: Sequence[str]) -> Job:
    """Parse the arguments. Raises InputError or OutputError for every fault that shows without reading a file."""
    parser = film_parser()
    values = vars(parser.parse_args(arguments))
    _check_engine(values, parser)
    options = Options(**{name: values.pop(name) for name, _, _ in controls()})
    line = _line(values.pop("text"), values.pop("voice"))
    job = Job(**values, line=line, options=options)
    if not 0 <= job.crf <= 51:
        raise InputError(f"Option 'crf' is {job.crf}, wanted a whole number from 0 to 51.")
    if not SMALLEST_SIDE_PX <= job.max_side <= LARGEST_SIDE_PX:
        raise InputError(
            f"Option 'max-side' is {job.max_side}, wanted px from {SMALLEST_SIDE_PX} to {LARGEST_SIDE_PX}."
        )
    if not 1 <= job.threads <= MOST_USEFUL:
        raise InputError(f"Option 'threads' is {job.threads}, wanted a whole number from 1 to {MOST_USEFUL}.")
    is_voiced = job.audio is not None or job.line is not None
    if is_voiced == (job.driving is not None) and job.motion is None:
        raise InputError(
            "Exactly one of --audio, --text, --driving and --motion is wanted (--motion may come with one of the first "
            "two)."
        )
    if job.driving is not None and job.motion is not None:
        raise InputError("Both --driving and --motion were given, wanted one of them.")
    if job.alpha and job.background is not None:
        raise InputError("Both --alpha and --background were given, wanted one of them.")
    _check_sound(job)
    check_share(job.checkpoint, job.personal)
    if FOLLOW in (job.retarget_eyes, job.retarget_lips) and not (job.driving or is_template(job.motion)):
        raise InputError(
            f"'{FOLLOW}' was asked for, but only a film (--driving) or a motion template of LivePortrait (--motion) "
            "tells how far eyes and lips are open; give one of them, or a number."
        )
    if job.face is not None and job.face < 0:
        raise InputError(f"Option 'face' is {job.face}, wanted a whole number from 0.")
    _check_paths(job)
    return job


def is_template(path: Path | None) -> bool:
    """Tell by its name whether a file is a motion template of LivePortrait."""
    return path is not None and path.suffix.lower() == ".pkl"


def _line(text: str | None, voice: str | None) -> Line | None:
    """Build the line to speak. Raises InputError for a voice without a text."""
    if text is not None:
        return Line(text, DEFAULT_VOICE if voice is None else voice)
    if voice is not None:
        raise InputError("--voice was given without --text; give a text, or leave --voice out.")
    return None


def _check_sound(job: Job) -> None:
    if not 0 <= job.start < math.inf:
        raise InputError(f"Option 'start' is {job.start}, wanted a number of seconds from 0.")
    if job.duration is not None and not 0 < job.duration < math.inf:
        raise InputError(f"Option 'duration' is {job.duration}, wanted a number of seconds above 0.")
    asked = {"start": job.start, "duration": job.duration, "pose-from": job.pose_from}
    given = [f"--{name}" for name, value in asked.items() if value]
    if given and ((job.audio is None and job.line is None) or job.motion is not None):
        raise InputError(f"{' and '.join(given)} can only be chosen where --audio or --text alone moves the portrait.")


def _check_engine(values: dict[str, Any], parser: Parser) -> None:
    given = [f"--{name.replace('_', '-')}" for name in PUBLISHED_ONLY if values[name] != parser.get_default(name)]
    if given and values["engine"] != "liveportrait":
        raise InputError(
            f"{' and '.join(given)} can only be chosen for --engine liveportrait, but the engine is "
            f"'{values['engine']}'; leave it out or choose the other engine."
        )
    folder = values["weights"]
    if folder is not None and not is_folder(folder):
        raise InputError(
            f"There is no folder '{folder}' with weights; `kdtalker weights get --weights FOLDER` fills one."
        )


def _check_paths(job: Job) -> None:
    background = job.background if isinstance(job.background, Path) else None
    wanted = {job.image: "a picture", job.audio: "a sound or a film with sound", job.driving: "a film",
              job.pose_from: "a film", job.motion: "a motion (.npz or .pkl)", background: "a picture or a colour",
              job.checkpoint: "a motion model (.safetensors)"}  # fmt: skip
    inputs = [path for path in wanted if path is not None]
    for path in inputs:
        check_file(path, wanted[path])
    weights = [file for weight in TABLE if (file := locate(weight, job.weights)) is not None]
    film = check_target(job.output, [*inputs, *weights])
    choose_encoding(job.output, job.alpha)
    if job.save_motion is not None:
        if job.save_motion.suffix.lower() != ".npz":
            raise InputError(f"The motion '{job.save_motion}' does not end in .npz, wanted the name of such a file.")
        if check_target(job.save_motion, [*inputs, *weights]) == film:
            raise InputError(f"'{job.output}' was asked for as film and as motion; choose two names.")
