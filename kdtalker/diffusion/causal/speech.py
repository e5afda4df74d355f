"""Load students, audio encoder and motion model in one file, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdtalker.audio.causal import CausalEncoder, FrameEncoder, SlidingCausalEncoder
from kdtalker.audio.causal_config import CausalWhisperConfig, EncoderConfig
from kdtalker.audio.causal_inference import EncoderInference
from kdtalker.audio.whisper import load_mel_filters
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import SlidingSpeech, Speech
from kdtalker.diffusion.causal.header import read_student_header
from kdtalker.diffusion.causal.inference import MotionInference, student_shapes
from kdtalker.diffusion.causal.model import CausalMotionModel
from kdtalker.diffusion.causal.personal import person_shapes, read_student_arrays
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.diffusion.header import require_shapes


@dataclass(frozen=True)
class SlidingStudent:
    """Make the sliding models of a student, which has the look-ahead that it was trained with."""

    encoder: CausalEncoder
    model: CausalMotionModel

    @property
    def lookahead_frames(self) -> int:
        """Return the look-ahead."""
        return self.encoder.network.config.lookahead_frames

    def __call__(self, lookahead: int) -> SlidingSpeech:
        """Raises InputError for another look-ahead than the student's own."""
        needed = self.lookahead_frames
        if lookahead != needed:
            raise InputError(
                f"Option 'lookahead' is {lookahead}, this student hears {needed} frames ahead; ask for {needed}, or "
                "choose another model."
            )
        return SlidingSpeech(SlidingCausalEncoder(self.encoder), self.model, 1, needed)


def load_student(path: Path, personal: float | None = None) -> Speech:
    """Load the speech models of a student: films are smoothed. Arguments and errors as of `load_sliding_student`."""
    student = load_sliding_student(path, personal)
    return Speech(student.encoder, FIRSmoothedModel(student.model), student)


def load_sliding_student(path: Path, personal: float | None = None) -> SlidingStudent:
    """Load a student; personal: how much like the person that it holds, 0..1, None for 1 where it holds one. Raises
    InputError where the file is missing, damaged or another model's, or the dial is set and it holds nobody."""
    header = read_student_header(path)
    require_shapes(path, person_shapes(path, student_shapes(header.config)))
    tensors = read_student_arrays(path, personal)
    encoder, motion = (
        {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
        for part in ("encoder.", "motion.")
    )
    heard = CausalEncoder(load_encoder(header.config.encoder, encoder), load_mel_filters())
    network = MotionInference(header.config, motion)
    return SlidingStudent(heard, CausalMotionModel(network, header.normalisation, header.space))


def load_encoder(config: EncoderConfig, tensors: Mapping[str, Array]) -> FrameEncoder:
    """Make the audio encoder of a config from its tensors."""
    if not isinstance(config, CausalWhisperConfig):
        return EncoderInference(config, tensors)
    from kdtalker.audio.causal_whisper_inference import WhisperInference  # numba, for these alone

    return WhisperInference(config, tensors)
