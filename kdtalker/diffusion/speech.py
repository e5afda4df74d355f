"""Load speech models: those of the package, and of files that `train` wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtalker.audio.encoders import load_encoder
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MESH_SPACE
from kdtalker.core.protocols import SlidingSpeech, Speech
from kdtalker.diffusion.causal.header import holds_student, read_student_header
from kdtalker.diffusion.causal.speech import load_sliding_student, load_student
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.sliding import sliding_speech
from kdtalker.weights import table
from kdtalker.weights.find import find

if TYPE_CHECKING:
    from kdtalker.core.protocols import AudioEncoder
    from kdtalker.weights.strict import Find

FILMS, LIVE_MOUTH = "mesh_motion.safetensors", "mesh_motion_live.safetensors"
STUDENT = "mesh_student.safetensors"  # takes live sound as soon as the table of weights has it


def load_model(path: Path, space: str) -> DiffusionMotionModel:
    """Load what `python -m train.export` wrote: without torch where there is a graph of its architecture. Raises
    InputError for another file or keypoint space."""
    check_checkpoint(path, space)
    return DiffusionMotionModel.load_graph(path) or DiffusionMotionModel.load(path)


def load_speech(
    path: Path, space: str, load_mouth: Callable[[], DiffusionMotionModel] | None = None, personal: float | None = None
) -> Speech:
    """Load the speech models of a file: a motion model with the audio encoder that it names, or a student, which holds
    its own. load_mouth: load the model of the mouth of live sound, where it is another one; personal: how much like the
    person of a student that holds one, 0..1. Raises InputError as `load_trained` and `check_checkpoint`."""
    if personal is not None or holds_student(path):
        check_checkpoint(path, space, personal)
        return load_student(path, personal)
    encoder, model = load_trained(path, space)
    return Speech(encoder, FIRSmoothedModel(model), sliding_speech(encoder, model, load_mouth))


def load_shipped() -> Speech:
    """Load the speech models of the package. Live sound is heard by the student, where the package has one and the
    look-ahead is its own, else by the teacher. Raises InputError where one is missing or damaged."""
    speech = load_teacher()
    if speech.sliding is None or not has_student():
        return speech
    return replace(speech, sliding=_prefer_student(speech.sliding))


def has_student() -> bool:
    """Tell whether the package has a student."""
    return any(row.name == STUDENT for row in table.TABLE)


def load_teacher() -> Speech:
    """Load the diffusion model of the package, whose mouth of live sound has weights of its own. Raises InputError
    where one is missing or damaged."""
    return load_speech(find(FILMS), MESH_SPACE, lambda: load_model(find(LIVE_MOUTH), MESH_SPACE))


def _prefer_student(teacher: Callable[[int], SlidingSpeech]) -> Callable[[int], SlidingSpeech]:
    """Build a factory of sliding models that takes the student's at its own look-ahead: with more, the teacher is
    better. It is loaded when it is first asked for."""
    header = cache(lambda: read_student_header(find(STUDENT)))
    student = cache(lambda: load_sliding_student(find(STUDENT)))

    def slide(lookahead: int) -> SlidingSpeech:
        is_own = lookahead == header().config.encoder.lookahead_frames
        return student()(lookahead) if is_own else teacher(lookahead)

    return slide


def load_trained(path: Path, space: str, find: Find = find) -> tuple[AudioEncoder[Any], DiffusionMotionModel]:
    """Load a motion model and its audio encoder. Raises InputError also where their feature sizes differ."""
    model = load_model(path, space)
    encoder = load_encoder(model.config.audio_encoder, find)
    if encoder.feature_size != model.config.audio_input:
        raise InputError(
            f"'{path}' takes {model.config.audio_input} audio features a frame, "
            f"'{model.config.audio_encoder}' gives {encoder.feature_size}; train it again on features of this version."
        )
    return encoder, model
