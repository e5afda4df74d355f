"""Load motion models that `train` exported, each with the audio encoder that it names, and students."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtalker.audio.encoders import load_encoder
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import Speech
from kdtalker.diffusion.causal.header import holds_student
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.sliding import sliding_speech
from kdtalker.weights.find import find

if TYPE_CHECKING:
    from kdtalker.core.protocols import AudioEncoder
    from kdtalker.weights.strict import Find


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
        from kdtalker.diffusion.causal.speech import load_student

        check_checkpoint(path, space, personal)
        return load_student(path, personal)
    encoder, model = load_trained(path, space)
    return Speech(encoder, FIRSmoothedModel(model), sliding_speech(encoder, model, load_mouth))


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
