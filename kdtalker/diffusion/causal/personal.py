"""Read students, also those that hold a person's own way of talking beside everybody's: a dial averages both sets of
weights, H(w) = w H_1 + (1 - w) H_0, and what comes out is a student as any other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.header import tensor_shapes

PREFIX = "personal."  # of the weights of a person, beside everybody's of the same name
COMMAND = "python -m train.personal"  # makes such files


def check_share(checkpoint: Path | None, share: float | None) -> None:
    """Check the dial, None where it was left alone, without reading a file. Raises InputError where it is not 0 to 1 or
    there is no checkpoint."""
    if share is None:
        return
    if not 0 <= share <= 1:
        raise InputError(f"Option 'personal' is {share}, wanted a number from 0 (everybody) to 1 (the person).")
    if checkpoint is None:
        raise InputError(f"--personal was given without --checkpoint; give a file that `{COMMAND}` wrote.")


def holds_person(path: Path) -> bool:
    """Tell whether a student holds a person's weights. Raises InputError where it is no safetensors file."""
    return any(name.startswith(PREFIX) for name in tensor_shapes(path))


def require_person(path: Path, share: float | None) -> None:
    """Raise InputError where the dial was set, and the checkpoint holds nobody's own way of talking."""
    if share is not None and not holds_person(path):
        raise InputError(
            f"'{path}' holds nobody's own way of talking, so there is no --personal; make one with `{COMMAND}`, or "
            "leave the option out."
        )


def person_shapes(path: Path, everybody: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """List the tensors of a student and of the person that it may hold: shapes by name."""
    found = tensor_shapes(path)
    own = {f"{PREFIX}{name}": shape for name, shape in everybody.items() if f"{PREFIX}{name}" in found}
    return {**everybody, **own}


def read_student_arrays(path: Path, share: float | None = None) -> dict[str, Array]:
    """Read the tensors of a student, blended at a share 0..1 of the person, None for 1. Raises InputError as
    `read_arrays` and `require_person`."""
    require_person(path, share)
    _, tensors = read_arrays(path, ())
    return blend_personal(tensors, 1.0 if share is None else share)


def blend_personal(tensors: Mapping[str, Array], share: float) -> dict[str, Array]:
    """Average everybody's weights and the person's, by names with and without PREFIX; at 0 and 1 either, to the bit."""
    blended = {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}
    for name in (name for name in tensors if name.startswith(PREFIX)):
        plain, own = name.removeprefix(PREFIX), tensors[name]
        if plain not in blended or blended[plain].shape != own.shape:
            raise InputError(f"The checkpoint holds {name}, which fits no weight of its student; download it again.")
        if share:
            between = blended[plain] + share * (own - blended[plain])
            blended[plain] = own if share == 1 else np.asarray(between, np.float32)
    return blended
