"""What a person may choose about a film. Flags of the command line and sliders of an app are built from here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from kdtalker.core.errors import InputError
from kdtalker.core.moods import MOODS


@dataclass(frozen=True)
class Control:
    """How one option is shown: a label, one line of help, for numbers the range with its step, its neighbours, and for
    words the ones that are known."""

    label: str
    help: str
    minimum: float = 0
    maximum: float = 1
    step: float = 1
    group: str = "Motion"
    choices: tuple[str, ...] = ()


def _option(default: Any, *control: Any, **more: Any) -> Any:
    return field(default=default, metadata={"control": Control(*control, **more)})


@dataclass(frozen=True)
class Options:
    """Every choice with its default. Raises InputError for a value of another kind or outside its range."""

    seed: int = _option(0, "Seed", "another number, another take of the same sentence", 0, 2**31 - 1, 1, "Take")
    steps: int = _option(
        0, "Sampling steps", "more take longer; 0 is the motion model's own number", 0, 100, 1, "Sampling"
    )
    guidance: float = _option(
        1.0, "Audio guidance", "how closely the face follows the sound; 1 is unguided", 0, 6, 0.1, "Sampling"
    )
    expression: float = _option(1.0, "Expression", "strength of mouth and face; 1 is as sampled", 0, 2, 0.05)
    mouth: float = _option(1.0, "Mouth", "strength of mouth and jaw alone, beside the expression's", 0, 2, 0.05)
    eyes: float = _option(
        1.0, "Eyes", "strength of the lids' and brows' own motion, beside the expression's", 0, 2, 0.05
    )
    head: float = _option(1.0, "Head", "strength of the head's motion; 1 is as sampled", 0, 2, 0.05)
    absolute: bool = _option(False, "Absolute", "motion as it was made, not led from how the picture looks")
    still: bool = _option(False, "Still head", "only the face moves, the head stays as in the picture")
    blink: float = _option(15.0, "Blinks", "a minute; 0 is none", 0, 40, 1, "Face")
    gaze: str = _option(
        "camera", "Gaze", "eyes rest on the camera, or wander", group="Face", choices=("camera", "free")
    )
    emphasis: float = _option(1.0, "Emphasis", "how far brows rise with the voice's emphasis", 0, 2, 0.05, "Face")
    smile: float = _option(0.0, "Smile", "corners of the mouth: up, or below 0 down", -1, 1, 0.05, "Face")
    brow: float = _option(0.0, "Brows", "up, or below 0 down", -1, 1, 0.05, "Face")
    emotion: str = _option("neutral", "Emotion", "a mood made of these", group="Face", choices=tuple(MOODS))
    yaw: float = _option(0.0, "Turn", "degrees to the picture's left, or below 0 right", -30, 30, 0.5, "Pose")
    pitch: float = _option(0.0, "Nod", "degrees down, or below 0 up", -30, 30, 0.5, "Pose")
    roll: float = _option(0.0, "Tilt", "degrees clockwise, or below 0 the other way", -30, 30, 0.5, "Pose")

    def __post_init__(self) -> None:
        for name, kind, control in controls():
            _check(name, getattr(self, name), kind, control)


def controls() -> list[tuple[str, type, Control]]:
    """Name, kind (int, float, bool or str) and control of every option, in order."""
    return [(option.name, type(option.default), option.metadata["control"]) for option in fields(Options)]


def _check(name: str, value: object, kind: type, control: Control) -> None:
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"Option '{name}' is {value!r}, wanted True or False.")
        return
    if kind is str:
        if value not in control.choices:
            raise InputError(f"Option '{name}' is {value!r}, wanted one of {', '.join(control.choices)}.")
        return
    allowed = int if kind is int else (int, float)
    is_number = isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not control.minimum <= value <= control.maximum:  # type: ignore[operator]
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"Option '{name}' is {value!r}, wanted {wanted} from {control.minimum} to {control.maximum}.")


def names_of(group: str) -> tuple[str, ...]:
    """List the options of one group."""
    return tuple(name for name, _, control in controls() if control.group == group)


PRESETS = {
    "natural": Options(),
    "still": Options(still=True, expression=0.9),
    "expressive": Options(expression=1.25, head=1.5),
}
