"""Learn a person's own way of talking: `python -m train.personal FILM... --out ME.safetensors`.

FILM is a minute of one person who speaks into the camera, or several films of the same person. The face is tracked, its
motion fitted and the sound heard by the student, a speech model that `python -m train.distil` made; then a small change
of the student is trained, while speech of others keeps it what it was for them. `inference.py --checkpoint
ME.safetensors --personal 0.7` speaks with it."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from kdtalker import __version__
from kdtalker.core.errors import InputError
from kdtalker.core.files import check_target
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.causal.personal import PREFIX
from kdtalker.diffusion.speech import STUDENT
from kdtalker.weights.checkpoint import write_safetensors
from kdtalker.weights.find import find
from kdtalker.weights.header import read_header
from train.distil.methods.personal import PersonalConfig
from train.harness.command import command
from train.personal.film import LEAST_CORRELATION, hear_clips, read_film, require_length
from train.personal.fit import fit_person, personal_tensors
from train.personal.student import BaseStudent

EXAMPLES = Path(__file__).parents[2] / "examples"  # the speech of others, where no other is given
THREADS = 2


def write_person(out: Path, student: Path, own: dict[str, Tensor], note: str) -> None:
    """Write everybody's weights, bit for bit as they are in the student's file, and the person's beside them. Raises
    OutputError where there is no room."""
    tensors = load_file(student)
    tensors |= {name: value.to(tensors[name.removeprefix(PREFIX)].dtype).contiguous() for name, value in own.items()}
    header = read_header(student, ("space", "student", "normalisation", "card"))
    header["card"] = header["card"] | {"person": f"{note}; kdtalker {__version__}, python -m train.personal"}
    write_safetensors(out, tensors, {name: json.dumps(value) for name, value in header.items()})


def learn_person(films: list[Path], student: Path, out: Path, speech: list[Path], config: PersonalConfig) -> str:
    """Make the file of a person; return a line that sums it up. Raises InputError, OutputError."""
    began_s = time.monotonic()
    check_target(out, [student, *films])
    base = BaseStudent.load(student)
    others = base.encode_files(speech)
    shards = [shard for film in films for shard in read_film(film)]
    require_length(shards, films)
    clips, lags = hear_clips(shards, base)
    for film, (lag_frames, r) in lags.items():
        if r < LEAST_CORRELATION:
            raise InputError(
                f"The mouth in '{film}' does not move with its sound (r {r:.2f} at best); give a film in which "
                "the person who is seen is the one who speaks."
            )
        print(f"{film}: the mouth is {lag_frames / FRAME_RATE_HZ:+.2f} s later than the sound, r {r:.2f}", flush=True)
    own = personal_tensors(fit_person(base, clips, others, config))
    seconds = sum(map(len, clips)) / FRAME_RATE_HZ
    write_person(out, student, own, f"{seconds:.0f} s of film")
    return f"{out}: learned from {seconds:.0f} s of film in {time.monotonic() - began_s:.0f} s"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, nargs="+", metavar="FILM", help="films of one person who speaks")
    parser.add_argument("--student", type=Path, help="the student to change; default: that of the package")
    parser.add_argument("--out", type=Path, required=True, help="the file to write (.safetensors)")
    parser.add_argument("--speech", type=Path, nargs="+", default=[EXAMPLES], help="sounds of others: files, folders")
    parser.add_argument("--steps", type=int, default=PersonalConfig.steps, help="of training (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    config = replace(PersonalConfig(), steps=options.steps)
    print(learn_person(options.films, options.student or find(STUDENT), options.out, options.speech, config))


if __name__ == "__main__":
    main()
