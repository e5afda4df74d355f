"""Headers of checkpoints, read and checked without torch: before anything heavy is imported or allocated."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr
from typing import Any

from safetensors import SafetensorError, safe_open

from kdtalker.core.errors import InputError
from kdtalker.core.motion import SPACES
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.normalisation import Normalisation

ENCODERS = ("whisper-tiny.en", "wav2lip")  # the audio encoders that a motion model may name


@dataclass(frozen=True)
class MotionHeader:
    """The header of a motion model's checkpoint; card: what people should know of the model, by name."""

    space: str
    config: DenoiserConfig
    normalisation: Normalisation
    card: dict[str, str]


def check_checkpoint(path: Path, space: str) -> MotionHeader:
    """Read the header of a motion model and check it against the keypoint space of an engine.

    Raises InputError where the file is missing, damaged, another model's, or made for another keypoint space.
    """
    header = read_motion_header(path)
    if header.space != space:
        raise InputError(
            f"'{path}' moves keypoints of the space '{header.space}', this engine draws '{space}'; "
            "choose the other engine, or a model that was trained for this one."
        )
    encoder = header.config.audio_encoder
    if encoder not in ENCODERS:
        raise InputError(f"'{path}' hears through {repr(encoder)}, known are {' and '.join(ENCODERS)}.")
    return header


def read_motion_header(path: Path) -> MotionHeader:
    """Read the header of a motion model. Raises InputError where it is missing or holds something else."""
    header = read_header(path, ("space", "config", "normalisation", "card"))
    space, card = header["space"], header["card"]
    try:
        if space not in SPACES:
            raise InputError(f"Its keypoint space is {repr(space)}, known are {' and '.join(SPACES)}.")
        if not isinstance(card, dict) or not all(isinstance(text, str) for text in card.values()):
            raise InputError(f"Its card is {repr(card)}, wanted texts by name.")
        config = DenoiserConfig.from_header(header["config"])
        return MotionHeader(space, config, Normalisation.from_header(header["normalisation"]), card)
    except InputError as error:
        raise InputError(f"'{path}' is not a motion model of this program: {error}") from None


def read_header(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read the JSON values under these names. Raises InputError where the file is no safetensors or lacks one."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    lacking = [name for name in names if name not in metadata]
    if lacking:
        raise InputError(f"'{path}' is a safetensors file without '{lacking[0]}' in its header; it is another model.")
    try:
        return {name: json.loads(metadata[name]) for name in names}
    except (ValueError, RecursionError):
        raise InputError(f"'{path}' has a header that cannot be read, it is damaged; download it again.") from None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors by name. Raises InputError where the file is no safetensors."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not os.path.lexists(path):
        raise InputError(f"There is no model file '{path}'; see weights/README.md for where to get it.")
    if not os.path.isfile(path):
        raise InputError(f"'{path}' is not a file, wanted a model (.safetensors).")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"'{path}' has a name that is not in UTF-8, which safetensors wants; rename it.") from None
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except PermissionError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from None
    except (SafetensorError, OSError):
        raise InputError(
            f"'{path}' cannot be read as a model, it is truncated or not safetensors; download it again."
        ) from None
