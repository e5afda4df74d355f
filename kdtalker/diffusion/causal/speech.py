"""Load and save students: audio encoder and motion model in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kdtalker.audio.causal import CausalEncoder, SlidingCausalEncoder
from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import SlidingSpeech, Speech
from kdtalker.diffusion.causal.header import StudentHeader, read_student_header
from kdtalker.diffusion.causal.model import CausalMotionModel
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.causal.personal import read_student_arrays
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.checkpoint import write_checkpoint
from kdtalker.weights.find import find
from kdtalker.weights.strict import load_strictly


@dataclass(frozen=True)
class SlidingStudent:
    """Make the sliding models of a student, by the look-ahead that is asked for: what it was trained to hear."""

    encoder: CausalEncoder
    model: CausalMotionModel

    def __call__(self, lookahead: int) -> SlidingSpeech:
        """Raises InputError for less look-ahead than the student needs."""
        needed = self.encoder.network.config.lookahead_frames
        if lookahead < needed:
            raise InputError(
                f"Option 'lookahead' is {lookahead}, this student hears {needed} frames ahead; ask for that many or "
                "more, or choose another model."
            )
        return SlidingSpeech(SlidingCausalEncoder(self.encoder), self.model, 1, needed)


def load_student(path: Path, personal: float | None = None) -> Speech:
    """Load a student; personal: how much like the person that it holds, 0..1, None for 1 where it holds one. Raises
    InputError where the file is missing, damaged or another model's, or the dial is set and it holds nobody."""
    return student_speech(load_network(path, personal), read_student_header(path))


def load_network(path: Path, personal: float | None = None) -> StudentNetwork:
    """Load the network of a student, in eval mode. Arguments and errors as of `load_student`."""
    config = read_student_header(path).config
    state = {name: torch.from_numpy(value) for name, value in read_student_arrays(path, personal).items()}
    return load_strictly(lambda: StudentNetwork(config), state, path)


def student_speech(network: StudentNetwork, header: StudentHeader) -> Speech:
    """Assemble the speech models of a network in eval mode: films are smoothed, live motion is as it comes."""
    _, tensors = read_arrays(find(WHISPER_FILE), ())
    encoder = CausalEncoder(network.encoder, tensors["mel_filters"])
    model = CausalMotionModel(network.motion, header.normalisation, header.space)
    return Speech(encoder, FIRSmoothedModel(model), SlidingStudent(encoder, model))


def save_student(path: Path, network: StudentNetwork, header: StudentHeader, *, half: bool = True) -> None:
    """Write a student as one safetensors file, matrices as float16 where `half`. Raises OutputError where there is no
    room."""
    values = {
        "space": header.space,
        "student": header.config.header(),
        "normalisation": header.normalisation.header(),
        "card": header.card,
    }
    write_checkpoint(path, network.state_dict(), values, half=half)
