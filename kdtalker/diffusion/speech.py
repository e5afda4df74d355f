"""Motion models of one's own, with the audio encoder that each of them names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtalker.core.errors import InputError
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.model import MotionModel
from kdtalker.weights.find import find

if TYPE_CHECKING:
    from kdtalker.core.protocols import AudioEncoder
    from kdtalker.weights.strict import Find
from kdtalker.audio.encoders import load_encoder


def load_model(path: Path, space: str) -> MotionModel:
    """What `python -m train.export` wrote. Raises InputError for another file and for another keypoint space."""
    check_checkpoint(path, space)
    return MotionModel.load(path)


def load_trained(path: Path, space: str, find: Find = find) -> tuple[AudioEncoder[Any], MotionModel]:
    """A model of one's own and its encoder. Raises InputError also where the two do not fit."""
    model = load_model(path, space)
    encoder = load_encoder(model.config.audio_encoder, find)
    if encoder.feature_size != model.config.audio_input:
        raise InputError(
            f"'{path}' takes {model.config.audio_input} audio features a frame, "
            f"'{model.config.audio_encoder}' gives {encoder.feature_size}; train it again on features of this version."
        )
    return encoder, model
