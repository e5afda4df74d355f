"""Registry of audio encoders: one row for each, and the functions that load one by name and encode a whole sound.

A new encoder is a class, most easily a `BlockEncoder`, and a row of ENCODERS. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, quote
from kdtalker.core.protocols import AudioEncoder, StateT
from kdtalker.weights.find import find

if TYPE_CHECKING:
    from kdtalker.weights.strict import Find

DEFAULT_ENCODER = "whisper-tiny.en"  # new motion models learn from its features, and A/V sync is estimated by them

PUBLISHED_ENCODER = "wav2lip"  # the published KDTalker model was trained on its features


def _load_whisper(find: Find) -> AudioEncoder[Any]:
    from kdtalker.audio.whisper import WHISPER_FILE, WhisperEncoder

    return WhisperEncoder.load(find(WHISPER_FILE))


def _load_wav2lip(find: Find) -> AudioEncoder[Any]:
    from kdtalker.audio.wav2lip import load_wav2lip

    return load_wav2lip(find)


def _whisper_sync_features(features: Array) -> Array:
    from kdtalker.audio.whisper import average_upper_layers

    return average_upper_layers(features)


def _all_features(features: Array) -> Array:
    return features.astype(np.float32)


@dataclass(frozen=True)
class EncoderSpec:
    """Describe an audio encoder: the row of the registry.

    load: load it on the CPU; `find` returns the path of a weight file by its name. feature_size: C, the number of
    features a frame. description: of the features, for the header of a motion model. cache_folder: where trainers keep
    features, beside the shards; it gets another name when features change, as they do with the frames of a block.
    right_context_frames: frames after a block that must have begun before it is final. sync_features: select those of
    (T, C) features by which A/V sync is estimated, (T, S).
    """

    load: Callable[[Find], AudioEncoder[Any]]
    feature_size: int
    description: str
    cache_folder: str
    right_context_frames: int
    sync_features: Callable[[Array], Array] = _all_features


ENCODERS = {
    DEFAULT_ENCODER: EncoderSpec(
        _load_whisper, 2304, "layers 2, 3, 4 of the encoder, two 50 Hz steps a frame", "features-whisper-32", 13,
        _whisper_sync_features,
    ),
    PUBLISHED_ENCODER: EncoderSpec(
        _load_wav2lip, 512, "512 numbers a frame from Wav2Lip's audio encoder", "features-wav2lip", 3
    ),
}  # fmt: skip


def encoder_spec(name: str) -> EncoderSpec:
    """Return the encoder's row of the registry. Raises InputError for an unknown name."""
    if name not in ENCODERS:
        raise InputError(
            f"The motion model hears through {quote(name)}, known are {' and '.join(ENCODERS)}; "
            "choose a model that was trained on one of them."
        )
    return ENCODERS[name]


def load_encoder(name: str, find: Find = find) -> AudioEncoder[Any]:
    """Load an audio encoder by its name. Raises InputError for an unknown name, and where its weights are missing."""
    return encoder_spec(name).load(find)


def encode_all(encoder: AudioEncoder[StateT], samples: Array) -> Array:
    """Encode a whole sound (N,) at 16 kHz into features (frame_count(N), C)."""
    features, state = encoder.encode(encoder.start(), samples)
    return np.concatenate([features, encoder.flush(state)])
