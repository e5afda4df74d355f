"""Read tensors of safetensors files as numpy arrays, without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.weights.header import read_header


def read_arrays(
    path: Path, names: Sequence[str], only: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the header's values under these names, and as float32 all tensors, or `only` those.

    Raises InputError where the file is missing, a folder, truncated, no safetensors or lacks a name, and where tensors
    hold numbers that are not finite.
    """
    header = read_header(path, names)
    try:
        with safe_open(path, framework="numpy") as file:  # one after the other, for memory
            wanted = file.keys() if only is None else only
            state = {name: np.asarray(file.get_tensor(name), np.float32) for name in wanted}
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:  # numpy lacks some types of numbers
        raise InputError(f"'{path}' cannot be read as a model ({error}); download it again.") from None
    for name, value in state.items():
        if not np.isfinite(value).all():
            raise InputError(
                f"'{path}' holds numbers that are not finite in {name}; it is damaged or failed in training."
            )
    return header, state
