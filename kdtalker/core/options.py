"""Options of a film, each with the control that shows it: command line flags and sliders are built from here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from kdtalker.core.errors import InputError, quote
from kdtalker.core.moods import MOODS

WHOLE_WINDOWS = -1  # of Options.lookahead: motion is made in windows of the model, however long they are awaited
LONGEST_SIDE_PX = 1920  # default limit of a film's longer side, which every phone plays


@dataclass(frozen=True)
class Control:
    """Describe how one option is shown: label, help, group; range and step of a number; choices of a word."""

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
    """Hold every choice about a film. Raises InputError for a value of another type or outside its range."""

    seed: int = _option(0, "Seed", "another number gives another performance", 0, 2**31 - 1, 1, "Variation")
    steps: int = _option(
        0, "Sampling steps", "steps of the diffusion sampler; 0 is the model's own number", 0, 100, 1, "Sampling"
    )
    guidance: float = _option(
        1.0,
        "Audio guidance",
        "strength of classifier-free guidance by the sound, times the model's own; 1 leaves it",
        0,
        6,
        0.1,
        "Sampling",
    )
    lookahead: int = _option(
        WHOLE_WINDOWS,
        "Look-ahead",
        "frames of sound, 40 ms each, that are heard beyond a frame, as live sound is; 4: by a small fast model, "
        "which knows no --steps and --guidance; -1: whole windows of some 3 s, the best motion",
        WHOLE_WINDOWS,
        8,
        1,
        "Sampling",
    )
    expression: float = _option(1.0, "Expression", "strength of the whole face's motion; 1 is as generated", 0, 2, 0.05)
    mouth: float = _option(1.0, "Mouth", "strength of mouth and jaw, times that of the expression", 0, 2, 0.05)
    eyes: float = _option(1.0, "Eyes", "strength of lids and brows, times that of the expression", 0, 2, 0.05)
    head: float = _option(1.0, "Head", "strength of the head's motion; 1 is as generated", 0, 2, 0.05)
    absolute: bool = _option(False, "Absolute", "use absolute motion: do not retarget to the source pose")
    still: bool = _option(False, "Still head", "keep head and shoulders as in the picture; only the face moves")
    blink: float = _option(15.0, "Blinks", "blinks a minute; 0 is none", 0, 40, 1, "Face")
    gaze: str = _option(
        "camera", "Gaze", "eyes stay on the camera, or wander freely", group="Face", choices=("camera", "free")
    )
    emphasis: float = _option(
        1.0, "Emphasis", "how far the brows rise and the head nods with the voice's emphasis", 0, 2, 0.05, "Face"
    )
    smile: float = _option(0.0, "Smile", "mouth corners up; below 0 down", -1, 1, 0.05, "Face")
    brow: float = _option(0.0, "Brows", "brows up; below 0 down", -1, 1, 0.05, "Face")
    emotion: str = _option(
        "neutral", "Emotion", "adds a mood to the face and the pose", group="Face", choices=tuple(MOODS)
    )
    yaw: float = _option(0.0, "Turn", "degrees to the left of the picture; below 0 to the right", -30, 30, 0.5, "Pose")
    pitch: float = _option(0.0, "Nod", "degrees down; below 0 up", -30, 30, 0.5, "Pose")
    roll: float = _option(0.0, "Tilt", "degrees clockwise; below 0 counterclockwise", -30, 30, 0.5, "Pose")

    def __post_init__(self) -> None:
        for name, kind, control in controls():
            _check(name, getattr(self, name), kind, control)


def controls() -> list[tuple[str, type, Control]]:
    """Return name, type (int, float, bool or str) and control of every option, in order."""
    return [(option.name, type(option.default), option.metadata["control"]) for option in fields(Options)]


def _check(name: str, value: object, kind: type, control: Control) -> None:
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"Option '{name}' is {quote(value)}, wanted True or False.")
        return
    if kind is str:
        if value not in control.choices:
            raise InputError(f"Option '{name}' is {quote(value)}, wanted one of {', '.join(control.choices)}.")
        return
    allowed = int if kind is int else (int, float)
    is_number = isinstance(value, allowed) and not isinstance(value, bool)
    if not is_number or not control.minimum <= value <= control.maximum:  # type: ignore[operator]
        wanted = "a whole number" if kind is int else "a number"
        span = f"{control.minimum} to {control.maximum}"
        raise InputError(f"Option '{name}' is {quote(value)}, wanted {wanted} from {span}.")


def names_of(group: str) -> tuple[str, ...]:
    """List the options of one group."""
    return tuple(name for name, _, control in controls() if control.group == group)


PRESETS = {
    "natural": Options(),
    "still": Options(still=True, expression=0.9),
    "expressive": Options(expression=1.25, head=1.5),
}
