"""Read and check headers of students, speech models distilled into one file, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from kdtalker.audio.causal_config import CausalEncoderConfig, EncoderConfig, read_encoder_config
from kdtalker.core.errors import InputError, quote
from kdtalker.core.motion import MESH_SPACE
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.weights.header import read_header

_RANGES = {"inputs": (1, 4096), "hidden": (1, 4096), "noise": (6, 512), "noise_memory": (0, 0.9999), "steps": (1, 4)}


@dataclass(frozen=True)
class StudentConfig:
    """Configure a student: its audio encoder; inputs, hidden: widths of the recurrent layer; noise: numbers of noise a
    frame, the first six for the head; noise_memory: of the process that they are (`noise.py`); steps: predictions of a
    frame, each later one sees the one before. Raises InputError for a value that cannot be."""

    encoder: EncoderConfig = field(default_factory=CausalEncoderConfig)
    inputs: int = 192
    hidden: int = 256
    noise: int = 16
    noise_memory: float = 0.87
    steps: int = 1

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not type(least) and type(value) is not type(most) or not least <= value <= most:
                raise InputError(f"The student's {name} is {quote(value)}, wanted {least} to {most}.")

    def header(self) -> dict[str, object]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_header(header: object) -> StudentConfig:
        """Read what `header` returned. Raises InputError where it does not fit."""
        names = [one.name for one in fields(StudentConfig)]
        if not isinstance(header, Mapping):
            raise InputError(f"The student's config is {quote(header)}, wanted {', '.join(names)}.")
        if wrong := sorted(set(names) ^ set(header)):
            raise InputError(
                f"The student's config {'lacks' if wrong[0] in names else 'has the unknown'} {quote(wrong[0])}, wanted "
                f"{', '.join(names)}."
            )
        return StudentConfig(**{**header, "encoder": read_encoder_config(header["encoder"])})


@dataclass(frozen=True)
class StudentHeader:
    """Hold the header of a student's file; card: the model card, texts by name."""

    space: str
    config: StudentConfig
    normalisation: Normalisation
    card: dict[str, str]


def holds_student(path: Path) -> bool:
    """Tell whether a safetensors file is a student. Raises InputError where it is missing or no such file."""
    return "student" in read_header(path, (), optional=("student",))


def read_student_header(path: Path) -> StudentHeader:
    """Read the header of a student. Raises InputError where it is missing or holds something else."""
    header = read_header(path, ("space", "student", "normalisation", "card"))
    try:
        if header["space"] != MESH_SPACE:
            raise InputError(f"Its keypoint space is {quote(header['space'])}, students have '{MESH_SPACE}'.")
        card = header["card"]
        if not isinstance(card, dict) or not all(isinstance(text, str) for text in card.values()):
            raise InputError(f"Its card is {quote(card)}, wanted texts by name.")
        config = StudentConfig.from_header(header["student"])
        return StudentHeader(MESH_SPACE, config, Normalisation.from_header(header["normalisation"]), card)
    except InputError as error:
        raise InputError(f"'{path}' is no student of this program: {error} Make it again, or take another.") from None
