"""The command line. Whatever goes wrong for a person ends in one line on stderr and the exit code of its error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kdtalker import __version__
from kdtalker.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, check_file, frame_count, read_sound
from kdtalker.errors import InputError, KDTalkerError, OutputError
from kdtalker.motion import Motion
from kdtalker.options import Options, controls

if TYPE_CHECKING:
    from kdtalker.pipeline import EncodedPortrait, Record, TalkingPortraitPipeline
    from kdtalker.renderer import Image

ENGINES = ("mesh", "liveportrait")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
Load = Callable[["Job"], "TalkingPortraitPipeline"]


@dataclass(frozen=True)
class Job:
    """What the command line asked for."""

    image: Path
    output: Path
    audio: Path | None
    driving: Path | None
    motion: Path | None
    save_motion: Path | None
    face: int | None
    box: tuple[float, float, float, float] | None
    crop: bool
    crf: int
    engine: str
    device: str
    precision: str
    options: Options


def load_engine(job: Job) -> TalkingPortraitPipeline:
    """The engine that the job names."""
    from kdtalker.pipeline import TalkingPortraitPipeline

    if job.engine == "mesh":
        return TalkingPortraitPipeline.mesh()
    return TalkingPortraitPipeline.liveportrait(job.device, job.precision)


def main(arguments: Sequence[str] | None = None, load: Load = load_engine) -> int:
    """Do what the arguments (default: the process's own) ask for; returns the exit code."""
    began = time.perf_counter()
    words = sys.argv[1:] if arguments is None else arguments
    with _only_our_words_on_stderr():
        try:
            line = _weights(words[1:]) if words[:1] == ["weights"] else _make(_parse(words), load, began)
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


class Parser(argparse.ArgumentParser):
    """Wrong words end like everything else that goes wrong: in an InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help.")


def _parser() -> Parser:
    parser = Parser(
        prog="kdtalker",
        description="One portrait and a voice become a talking film.",
        epilog="`kdtalker weights --help` tells of the weight files.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--image", type=Path, required=True, metavar="PICTURE", help="the portrait")
    add("--output", type=Path, required=True, metavar="FILM", help="the film to write (.mp4)")
    add("--audio", type=Path, metavar="SOUND", help="what the portrait says: any sound file or film with sound")
    add("--driving", type=Path, metavar="FILM", help="a film whose face the portrait follows, with its sound")
    add("--motion", type=Path, metavar="NPZ", help="a saved motion that the portrait follows, silent or with --audio")
    add("--save-motion", type=Path, metavar="NPZ", help="save the motion of the film too")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--face", type=int, metavar="N", help="which face, by size from 0 (default: the largest)")
    which.add_argument("--box", type=_box, metavar="X,Y,W,H", help="the face in this box, in px")
    add("--crop", action="store_true", help="the film shows the square around the face alone, 512 px wide")
    add("--crf", type=int, default=18, metavar="0..51", help="quality of the film, smaller is better (default: 18)")
    add("--engine", choices=ENGINES, default=ENGINES[0],
        help="mesh ships with the package; liveportrait is the published networks (default: mesh)")  # fmt: skip
    add("--device", default="auto", help="of --engine liveportrait: auto, cpu, cuda, or mps (experimental)")
    add("--precision", choices=PRECISIONS, default="auto", help="of --engine liveportrait (default: half on cuda)")
    for name, kind, control in controls():
        flag, default = "--" + name.replace("_", "-"), getattr(Options, name)
        if kind is bool:
            add(flag, action="store_true", help=control.help)
        else:
            ends = f"{control.minimum:g}..{control.maximum:g}"
            add(flag, type=kind, default=default, metavar=ends, help=f"{control.help} (default: {default})")
    add("--version", action="version", version=f"kdtalker {__version__}")
    return parser


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y,W,H in px, for example 120,80,200,200") from None
    if not (width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"'{text}' has no width or no height")
    return x, y, width, height


def _parse(arguments: Sequence[str]) -> Job:
    """Raises InputError or OutputError for everything that can be told without reading a file."""
    values = vars(_parser().parse_args(arguments))
    options = Options(**{name: values.pop(name) for name, _, _ in controls()})
    job = Job(**values, options=options)
    if not 0 <= job.crf <= 51:
        raise InputError(f"Option 'crf' is {job.crf}, wanted a whole number from 0 to 51.")
    if (job.audio is None) == (job.driving is None) and job.motion is None:
        raise InputError("Exactly one of --audio, --driving and --motion is wanted (--audio may come with --motion).")
    if job.driving is not None and job.motion is not None:
        raise InputError("Both --driving and --motion were given, wanted one of them.")
    if job.face is not None and job.face < 0:
        raise InputError(f"Option 'face' is {job.face}, wanted a whole number from 0.")
    _check_paths(job)
    return job


def _check_paths(job: Job) -> None:
    wanted = {job.image: "a picture", job.audio: "a sound or a film with sound", job.driving: "a film",
              job.motion: "a motion (.npz)"}  # fmt: skip
    inputs = [path for path in wanted if path is not None]
    for path in inputs:
        check_file(path, wanted[path])
    _check_output(job.output, inputs)
    if job.save_motion is not None:
        _check_output(job.save_motion, inputs)
        if job.save_motion.absolute() == job.output.absolute():
            raise InputError(f"'{job.output}' was asked for as film and as motion; choose two names.")


def _check_output(path: Path, inputs: list[Path]) -> None:
    if not path.parent.is_dir():
        raise InputError(f"There is no folder '{path.parent}' to write '{path.name}' into; make it first.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder, wanted the name of a file to write.")
    if any(path.exists() and path.samefile(other) for other in inputs):
        raise InputError(f"'{path}' is one of the inputs and would be overwritten; choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder '{path.parent}' is read-only; choose another one for '{path.name}'.")


@dataclass(frozen=True)
class Drive:
    """What moves the portrait, read far enough to know that it is good: how many frames it makes, how long its sound
    lasts (None: as long as the frames), the file of that sound, and a saved motion where that was given."""

    frames: int
    sound_s: float | None
    sound: Path | None
    motion: Motion | None = None


def _make(job: Job, load: Load, began: float) -> str:
    """Make the film; cheap checks come before the models are loaded. Returns the line that tells about it."""
    from tqdm import tqdm

    from kdtalker.video import VideoWriter, read_image

    image = read_image(job.image)
    drive = _open(job)
    pipeline = load(job)
    portrait = pipeline.portrait(image, face=job.face, box=job.box, crop=job.crop)
    recorded: list[Motion] = []
    record = recorded.append if job.save_motion else None
    frames = _frames(pipeline, portrait, job, drive, record)
    first = next(frames)
    height, width = first.shape[:2]
    count = 0
    with (
        tqdm(total=drive.frames, unit="frame", disable=None, leave=False, file=sys.stderr) as bar,
        VideoWriter(job.output, width, height, sound=drive.sound, crf=job.crf, duration_s=drive.sound_s) as film,
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
    samples = sum(map(len, read_sound(job.audio))) if job.audio is not None else 0
    if job.motion is None:
        return Drive(frame_count(samples), samples / SAMPLE_RATE_HZ, job.audio)
    motion = Motion.load(job.motion)
    if not len(motion):
        raise InputError(f"The motion '{job.motion}' has no frames.")
    return Drive(len(motion), None, job.audio, motion)


def _frames(
    pipeline: TalkingPortraitPipeline, portrait: EncodedPortrait, job: Job, drive: Drive, record: Record | None
) -> Iterator[Image]:
    from kdtalker.video import read_film

    if drive.motion is not None:
        return pipeline.reenact(portrait, [drive.motion], job.options, record)
    if job.driving is not None:
        return pipeline.reenact(portrait, pipeline.track(read_film(job.driving)), job.options, record)
    assert job.audio is not None
    return pipeline.animate(portrait, read_sound(job.audio), job.options, record)


def _save(recorded: list[Motion], path: Path) -> None:
    try:
        Motion.concatenate(recorded).save(path)
    except OSError as error:
        raise OutputError(f"The motion could not be written to '{path}': {error.strerror}.") from None


def _summary(frames: int, took_s: float, output: Path) -> str:
    film_s = frames / FRAME_RATE_HZ
    speed = film_s / took_s
    return f"{frames} frames, {film_s:.2f} s of film made in {took_s:.1f} s ({speed:.2f} x real time): {output}"
