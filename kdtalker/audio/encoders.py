"""Load an audio encoder by its name; encode a whole sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import AudioEncoder, StateT
from kdtalker.weights.find import find

if TYPE_CHECKING:
    from kdtalker.core.protocols import AudioEncoder
    from kdtalker.weights.strict import Find

ENCODERS = ("whisper-tiny.en", "wav2lip")  # the audio encoders that a motion model may name


def encode_all(encoder: AudioEncoder[StateT], samples: Array) -> Array:
    """The features (frame_count(samples), C) of a whole sound."""
    features, state = encoder.encode(encoder.start(), samples)
    return np.concatenate([features, encoder.flush(state)])


def load_encoder(name: str, find: Find = find) -> AudioEncoder[Any]:
    """The audio encoder of that name. Raises InputError for another one, and where its weights are missing."""
    if name == "whisper-tiny.en":
        from kdtalker.audio.whisper import WhisperEncoder

        return WhisperEncoder.load()
    if name == "wav2lip":
        from kdtalker.audio.wav2lip import load_wav2lip

        return load_wav2lip(find)
    raise InputError(f"The motion model hears through '{name}', known are {' and '.join(ENCODERS)}.")
