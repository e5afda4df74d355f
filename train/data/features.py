"""Cache the audio features of shards on disk, one .npy for each shard in a folder for each audio encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.audio.encoders import encode_all
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.protocols import AudioEncoder
from train.data.shards import Shard


def load_features(shard: Shard, encoder: AudioEncoder[Any], folder: Path) -> Array:
    """Load the features (T, C) float16 of a shard as a view of its file in `folder`, which is made where it is missing.

    Raises InputError where the file holds features of another size.
    """
    path = folder / f"{shard.name}.npy"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        encoded = encode_all(encoder, shard.sound.astype(np.float32)).astype(np.float16)
        write_atomically(path, lambda file: np.save(file, encoded))
    features: Array = np.load(path, mmap_mode="r")
    if features.shape[1:] != (encoder.feature_size,):
        raise InputError(f"'{path}' holds {features.shape[1:]} numbers a frame, wanted {encoder.feature_size}; "
                         "remove that folder, it is made again.")  # fmt: skip
    return features
