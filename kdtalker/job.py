"""What the command line asks for: its words read and checked, as far as can be told without reading a file."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kdtalker import __version__
from kdtalker.audio import check_file
from kdtalker.errors import InputError
from kdtalker.files import check_target
from kdtalker.options import Options, controls
from kdtalker.speaker import DEFAULT_VOICE, SAID_OF_VOICES, Line
from kdtalker.video_writer import check_film_name
from kdtalker.weights import TABLE, locate

ENGINES = ("mesh", "liveportrait")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
PUBLISHED_ONLY = (
    "device",
    "precision",
    "compile",
    "weights",
    "retarget_eyes",
    "retarget_lips",
)  # not of the mesh engine
FOLLOW = "driving"  # as far open as in what drives the portrait
WIDEST = 0.8  # the largest ratio that may be asked for


Backdrop = Path | tuple[int, int, int]  # a picture, or a colour: red, green, blue 0..255


@dataclass(frozen=True)
class Job:
    """What the command line asked for."""

    image: Path
    output: Path
    background: Backdrop | None
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
    crf: int
    engine: str
    device: str
    precision: str
    compile: bool
    weights: Path | None
    retarget_eyes: float | str | None
    retarget_lips: float | str | None
    checkpoint: Path | None
    quiet: bool
    options: Options


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
    add("--output", type=Path, required=True, metavar="FILM",
        help="the film to write: .mp4, .mov, .webm or .gif (silent)")  # fmt: skip
    said = parser.add_mutually_exclusive_group()
    said.add_argument(
        "--audio", type=Path, metavar="SOUND", help="what the portrait says: any sound file or film with sound"
    )
    said.add_argument("--text", metavar="WORDS", help="what the portrait says, spoken by --voice")
    add("--voice", metavar="NAME", help=f"who speaks --text: {SAID_OF_VOICES} (default: {DEFAULT_VOICE})")
    add("--voices", action=_ListVoices, help="list the voices and exit")
    add("--start", type=_number, default=0.0, metavar="S", help="leave out so much of the sound, in s (default: 0)")
    add("--duration", type=_number, metavar="S", help="of the sound, in s (default: all of it)")
    add("--pose-from", type=Path, metavar="FILM",
        help="a film whose head's motion the portrait takes, forward and backward in turn")  # fmt: skip
    add("--background", type=_backdrop, metavar="PICTURE|COLOUR",
        help="what stands behind the person instead of the portrait's own: #336699, teal, or a picture")  # fmt: skip
    add("--driving", type=Path, metavar="FILM", help="a film whose face the portrait follows, with its sound")
    add("--motion", type=Path, metavar="FILE",
        help="a saved motion (.npz) or LivePortrait template (.pkl) to follow, silent or with a voice")  # fmt: skip
    add("--save-motion", type=Path, metavar="NPZ", help="save the motion of the film too (.npz)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--face", type=_whole_number, metavar="N", help="which face, by size from 0 (default: the largest)"
    )
    which.add_argument("--box", type=_box, metavar="X,Y,W,H", help="the face in this box, in px")
    add("--crop", action="store_true", help="the film shows the square around the face alone, 512 px wide")
    add("--crf", type=_whole_number, default=18, metavar="0..51",
        help="quality of the film, smaller is better (default: 18; a .gif has one quality)")  # fmt: skip
    add("--engine", choices=ENGINES, default=ENGINES[0],
        help="mesh ships with the package; liveportrait is the published networks (default: mesh)")  # fmt: skip
    add("--device", default="auto", help="of --engine liveportrait: auto, cpu, cuda, or mps (experimental)")
    add("--precision", choices=PRECISIONS, default="auto", help="of --engine liveportrait (default: half on cuda)")
    add("--compile", action="store_true",
        help="of --engine liveportrait: paint by torch.compile (experimental; wants a C++ compiler)")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE", help="a motion model of your own, see docs/training.md")
    add("--weights", type=Path, metavar="FOLDER", help="of --engine liveportrait: look for its files here first")
    for part, gap in (("eyes", "lids' gap over the eyes' width"), ("lips", "lips' gap over the mouth's width")):
        add(f"--retarget-{part}", type=_ratio, metavar=f"{FOLLOW}|0..{WIDEST}",
            help=f"of --engine liveportrait: {part} as far open as the driving film's, or by this {gap}")  # fmt: skip
    _add_options(parser)
    add("--quiet", action="store_true", help="report no progress, only what went wrong and the last line")
    add("--version", action="version", version=f"kdtalker {__version__}")
    return parser


def _add_options(parser: Parser) -> None:
    """A flag for each of the Options."""
    for name, kind, control in controls():
        flag, default = "--" + name.replace("_", "-"), getattr(Options, name)
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=control.help)
        elif kind is str:
            parser.add_argument(
                flag, choices=control.choices, default=default, help=f"{control.help} (default: {default})"
            )
        else:
            ends = f"{control.minimum:g}..{control.maximum:g}"
            read = _whole_number if kind is int else _number
            parser.add_argument(
                flag, type=read, default=default, metavar=ends, help=f"{control.help} (default: {default})"
            )


class _ListVoices(argparse.Action):
    """Print the voices of --text and exit, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from kdtalker.speaker import list_voices

        sys.stdout.write(list_voices())
        parser.exit()


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y,W,H in px, for example 120,80,200,200") from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y,W,H in px: its numbers must be finite")
    if not (width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"'{text}' has no width or no height")
    return x, y, width, height


def _backdrop(text: str) -> Backdrop:
    """Read a colour, or else the path of a picture, which is checked with the other inputs."""
    from kdtalker.backdrop import colour

    try:
        return colour(text)
    except InputError as error:
        path = Path(text)
        if path.suffix or len(path.parts) > 1 or os.path.lexists(path):
            return path
        raise argparse.ArgumentTypeError(str(error)) from None


def _ratio(text: str) -> float | str:
    if text == FOLLOW:
        return text
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= WIDEST:
        raise argparse.ArgumentTypeError(f"'{text}' is neither '{FOLLOW}' nor a number from 0 to {WIDEST}")
    return ratio


def parse(arguments: Sequence[str]) -> Job:
    """Raises InputError or OutputError for everything that can be told without reading a file."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    _check_engine(values, parser)
    options = Options(**{name: values.pop(name) for name, _, _ in controls()})
    line = _line(values.pop("text"), values.pop("voice"))
    job = Job(**values, line=line, options=options)
    if not 0 <= job.crf <= 51:
        raise InputError(f"Option 'crf' is {job.crf}, wanted a whole number from 0 to 51.")
    is_voiced = job.audio is not None or job.line is not None
    if is_voiced == (job.driving is not None) and job.motion is None:
        raise InputError(
            "Exactly one of --audio, --text, --driving and --motion is wanted (--motion may come with one of the first "
            "two)."
        )
    if job.driving is not None and job.motion is not None:
        raise InputError("Both --driving and --motion were given, wanted one of them.")
    _check_sound(job)
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
    """Whether the file is a motion template of LivePortrait, by its name."""
    return path is not None and path.suffix.lower() == ".pkl"


def _line(text: str | None, voice: str | None) -> Line | None:
    if text is not None:
        return Line(text, voice or DEFAULT_VOICE)
    if voice is not None:
        raise InputError("--voice says who speaks --text, which was not given.")
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
            f"{' and '.join(given)} can only be chosen for --engine liveportrait, this film is made by the engine "
            f"'{values['engine']}'; leave it out or choose the other engine."
        )
    folder = values["weights"]
    if folder is not None and not folder.is_dir():
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
    film = check_target(job.output, inputs)
    check_film_name(job.output)
    if job.save_motion is not None:
        if job.save_motion.suffix.lower() != ".npz":
            raise InputError(f"The motion '{job.save_motion}' does not end in .npz, wanted the name of such a file.")
        weights = [file for weight in TABLE if (file := locate(weight, job.weights)) is not None]
        if check_target(job.save_motion, [*inputs, *weights]) == film:
            raise InputError(f"'{job.output}' was asked for as film and as motion; choose two names.")
