"""What a person may choose about a film. Flags of the command line and sliders of an app are built from here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from kdtalker.errors import InputError


@dataclass(frozen=True)
class Control:
    """How one option is shown: a label, one line of help, for numbers the range with its step, and its neighbours."""

    label: str
    help: str
    minimum: float = 0
    maximum: float = 1
    step: float = 1
    group: str = "Motion"


def _option(default: Any, *control: Any) -> Any:
    return field(default=default, metadata={"control": Control(*control)})


@dataclass(frozen=True)
class Options:
    """Every choice with its default. Raises InputError for a value of another kind or outside its range."""

    seed: int = _option(0, "Seed", "another number, another take of the same sentence", 0, 2**31 - 1, 1, "Take")
    steps: int = _option(10, "Sampling steps", "more take longer", 1, 100, 1, "Sampling")
    guidance: float = _option(
        1.0, "Audio guidance", "how closely the face follows the sound; 1 is unguided", 0, 6, 0.1, "Sampling"
    )
    expression: float = _option(1.0, "Expression", "strength of mouth and face; 1 is as sampled", 0, 2, 0.05)
    head: float = _option(1.0, "Head", "strength of the head's motion; 1 is as sampled", 0, 2, 0.05)
    absolute: bool = _option(False, "Absolute", "motion as it was made, not led from how the picture looks")
    still: bool = _option(False, "Still head", "only the face moves, the head stays as in the picture")

    def __post_init__(self) -> None:
        for name, kind, control in controls():
            _check(name, getattr(self, name), kind, control)


def controls() -> list[tuple[str, type, Control]]:
    """Name, kind (int, float or bool) and control of every option, in order."""
    return [(option.name, type(option.default), option.metadata["control"]) for option in fields(Options)]


def _check(name: str, value: object, kind: type, control: Control) -> None:
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"Option '{name}' is {value!r}, wanted True or False.")
        return
    allowed = int if kind is int else (int, float)
    is_number = isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not control.minimum <= value <= control.maximum:  # type: ignore[operator]
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"Option '{name}' is {value!r}, wanted {wanted} from {control.minimum} to {control.maximum}.")


PRESETS = {
    "natural": Options(),
    "still": Options(still=True, expression=0.9),
    "expressive": Options(expression=1.25, head=1.5),
}
