"""Parser of the film command: flags, their types and their help."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from kdtalker import __version__
from kdtalker.core.errors import InputError, did_you_mean
from kdtalker.core.options import LONGEST_SIDE_PX, Options, controls
from kdtalker.core.threads import MOST_USEFUL, get_threads
from kdtalker.tts.line import DEFAULT_VOICE, VOICE_HELP

ENGINES = ("mesh", "liveportrait")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
FOLLOW = "driving"  # --retarget-eyes and --retarget-lips take the ratios of the driving video or template
WIDEST = 0.8  # the largest ratio that --retarget-eyes and --retarget-lips accept

Backdrop = Path | tuple[int, int, int]  # a picture, or a colour: red, green, blue 0..255


class Parser(argparse.ArgumentParser):
    """Parse arguments; raise InputError for wrong ones."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        near = did_you_mean(unknown[1].split("=")[0], self._option_string_actions) if unknown else ""
        raise InputError(f"{message}; see --help.{near}")

    def long_options(self) -> dict[str, argparse.Action]:
        """Return the options by their long names, without the dashes."""
        return {flag[2:]: action for flag, action in self._option_string_actions.items() if flag.startswith("--")}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but report a misspelt option before a missing one."""
        words = sys.argv[1:] if args is None else list(args)
        known = self._option_string_actions
        options = takewhile(lambda word: word != "--", words)
        for word in (word.split("=")[0] for word in options if re.match(r"--[a-z][a-z-]*(=|$)", word)):
            if word not in known and did_you_mean(word, known):
                self.error(f"unrecognized arguments: {word}")
        return super().parse_known_args(words, namespace)


def film_parser() -> Parser:
    """Build the parser of the film command."""
    parser = Parser(
        prog="kdtalker",
        description="One portrait and a voice become a talking film.",
        epilog="`kdtalker weights --help` explains the weight files, `kdtalker live --help` live streams, "
        "`kdtalker batch --help` many films from a table.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--image", type=Path, required=True, metavar="PICTURE", help="the source image: a portrait")
    add("--output", type=Path, required=True, metavar="FILM",
        help="the film to write: .mp4, .mov, .webm or .gif (silent); always 25 frames a second")  # fmt: skip
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--audio", type=Path, metavar="SOUND", help="the voice: a sound file, or a film with sound")
    said.add_argument("--text", metavar="WORDS", help="a text to say, spoken by --voice")
    add("--voice", metavar="NAME", help=f"the voice of --text: {VOICE_HELP} (default: {DEFAULT_VOICE})")
    add("--voices", action=_ListVoices, help="list the voices and exit")
    add("--start", type=_number, default=0.0, metavar="S", help="skip this many seconds of the sound (default: 0)")
    add("--duration", type=_number, metavar="S", help="use this many seconds of the sound (default: all)")
    add("--pose-from", type=Path, metavar="FILM",
        help="take the head's motion from a film, played forward and backward in turn")  # fmt: skip
    add("--background", type=_backdrop, metavar="PICTURE|COLOUR",
        help="replace the background: by a colour (#336699, teal) or a picture")  # fmt: skip
    add("--alpha", action="store_true",
        help="make the background transparent: .mov (ProRes 4444) or .webm (VP9)")  # fmt: skip
    add("--driving", type=Path, metavar="FILM", help="a driving video: the portrait follows its face, with its sound")
    add("--motion", type=Path, metavar="FILE",
        help="follow a saved motion (.npz) or LivePortrait template (.pkl); silent without a voice")  # fmt: skip
    add("--save-motion", type=Path, metavar="NPZ", help="also save the motion of the film (.npz)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--face", type=_whole_number, metavar="N", help="which face, numbered by size from 0 (default: the largest)"
    )
    which.add_argument("--box", type=_box, metavar="X,Y,W,H", help="the face in this box, in px from the upper left")
    add("--crop", action="store_true", help="film only the square around the face, 512 px wide")
    add("--max-side", type=_whole_number, default=LONGEST_SIDE_PX, metavar="PX",
        help=f"scale larger pictures down to this (default: {LONGEST_SIDE_PX}, which every phone plays)")  # fmt: skip
    add("--crf", type=_whole_number, default=18, metavar="0..51",
        help="quality of the film; smaller is better (default: 18; .gif ignores it)")  # fmt: skip
    add("--engine", choices=ENGINES, default=ENGINES[0],
        help="mesh ships with the package; liveportrait: the published networks (default: mesh)")  # fmt: skip
    add("--device", default="auto", help="for --engine liveportrait: auto, cpu, cuda, or mps (experimental)")
    add("--precision", choices=PRECISIONS, default="auto",
        help="for --engine liveportrait (default: float16 on cuda, else float32)")  # fmt: skip
    add("--compile", action="store_true",
        help="for --engine liveportrait: use torch.compile (experimental; needs a C++ compiler on a CPU)")  # fmt: skip
    add_checkpoint(parser)
    add("--weights", type=Path, metavar="FOLDER", help="for --engine liveportrait: the folder to search first")
    for part, gap in (("eyes", "lid gap / eye width"), ("lips", "lip gap / mouth width")):
        add(f"--retarget-{part}", type=_ratio, metavar=f"{FOLLOW}|0..{WIDEST}",
            help=f"for --engine liveportrait: {part} as open as in the driving video, or a ratio: {gap}")  # fmt: skip
    add_options(parser)
    add("--threads", type=_whole_number, default=get_threads(), metavar="N",
        help=f"threads that work on the film, 1 to {MOST_USEFUL} (default: {MOST_USEFUL}; on one core 1)")  # fmt: skip
    add("--quiet", action="store_true", help="show no progress, only errors and the last line")
    add("--version", action="version", version=f"kdtalker {__version__}")
    return parser


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flags of another motion model."""
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE",
        help="a motion model or a student of your own, see docs/training.md and docs/distillation.md")  # fmt: skip
    add("--personal", type=_number, metavar="0..1",
        help="how much like the person whose film made the checkpoint, see docs/training.md (default: 1)")  # fmt: skip


def add_options(parser: Parser) -> None:
    """Add a flag for each of the Options."""
    for name, kind, control in controls():
        flag, default = "--" + name.replace("_", "-"), getattr(Options, name)
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=control.help)
        elif kind is str:
            parser.add_argument(
                flag, choices=control.choices, default=default, help=f"{control.help} (default: %(default)s)"
            )
        else:
            ends = "..".join(str(int(end)) if kind is int else f"{end:g}" for end in (control.minimum, control.maximum))
            read = _whole_number if kind is int else _number
            parser.add_argument(
                flag, type=read, default=default, metavar=ends, help=f"{control.help} (default: %(default)s)"
            )


class _ListVoices(argparse.Action):
    """Print the voices of --text and exit, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from kdtalker.tts.speak import list_voices

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
    """Parse a colour, or else the path of a picture, which is checked with the other inputs."""
    from kdtalker.face.background import parse_colour

    try:
        return parse_colour(text)
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
