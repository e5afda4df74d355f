"""Read and check headers of motion model checkpoints without torch, before anything heavy is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdtalker.audio.encoders import encoder_spec
from kdtalker.core.errors import InputError, quote
from kdtalker.core.motion import SPACES
from kdtalker.diffusion.calibration import Calibration
from kdtalker.diffusion.causal.header import StudentHeader, holds_student, read_student_header
from kdtalker.diffusion.causal.personal import require_person
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.weights.header import read_header, tensor_shapes


@dataclass(frozen=True)
class MotionHeader:
    """Hold the header of a motion model's checkpoint; card: the model card, texts by name; calibration: None in older
    ones."""

    space: str
    config: DenoiserConfig
    normalisation: Normalisation
    card: dict[str, str]
    calibration: Calibration | None


def check_checkpoint(path: Path, space: str, personal: float | None = None) -> MotionHeader | StudentHeader:
    """Read the header of a motion model or a student and check it against the keypoint space of an engine.

    Raises InputError where the file is missing, damaged, another model's, or made for another keypoint space, and where
    `personal`, how much like a person, is given and it holds nobody's own way of talking.
    """
    header = read_student_header(path) if holds_student(path) else read_motion_header(path)
    if header.space != space:
        raise InputError(
            f"'{path}' moves keypoints of the space '{header.space}', this engine draws '{space}'; "
            "choose the other engine, or a model that was trained for this one."
        )
    require_person(path, personal)
    if isinstance(header, StudentHeader):
        return header
    try:
        encoder_spec(header.config.audio_encoder)
    except InputError as error:
        raise InputError(f"'{path}' cannot be used: {error}") from None
    return header


def read_motion_header(path: Path) -> MotionHeader:
    """Read the header of a motion model. Raises InputError where it is missing or holds something else."""
    header = read_header(path, ("space", "config", "normalisation", "card"), optional=("calibration",))
    space, card = header["space"], header["card"]
    try:
        if space not in SPACES:
            raise InputError(f"Its keypoint space is {quote(space)}, known are {' and '.join(SPACES)}.")
        if not isinstance(card, dict) or not all(isinstance(text, str) for text in card.values()):
            raise InputError(f"Its card is {quote(card)}, wanted texts by name.")
        config = DenoiserConfig.from_header(header["config"])
        calibration = Calibration.from_header(header["calibration"]) if "calibration" in header else None
        if calibration and not (config.prediction == "sample" and config.relative):
            raise InputError("Only a relative model that predicts the clean motion ('sample') can be calibrated.")
        return MotionHeader(space, config, Normalisation.from_header(header["normalisation"]), card, calibration)
    except InputError as error:
        raise InputError(f"'{path}' is not a motion model of this program: {error}") from None


def require_shapes(path: Path, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors of a motion model with those of the network that its header describes, shapes by name.

    Raises InputError where they differ."""
    found = tensor_shapes(path)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"'{path}' does not fit its own header: "
                f"{name} has the shape {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}; "
                "download or train the model again."
            )
