"""Load and save students: audio encoder and motion model in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtalker.audio.causal import CausalEncoder, SlidingCausalEncoder
from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import SlidingSpeech, Speech
from kdtalker.diffusion.causal.header import StudentHeader, read_student_header
from kdtalker.diffusion.causal.model import CausalMotionModel
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.checkpoint import read_checkpoint, write_checkpoint
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


def load_student(path: Path) -> Speech:
    """Load a student. Raises InputError where the file is missing, damaged or another model's."""
    header = read_student_header(path)
    _, state = read_checkpoint(path, ())
    return student_speech(load_strictly(lambda: StudentNetwork(header.config), state, path), header)


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
