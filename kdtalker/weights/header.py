"""Read headers of safetensors files without importing torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdtalker.core.errors import InputError


def read_header(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Read the JSON values under these names, and under those optional names that are there.

    Raises InputError where the file is no safetensors or lacks one of `names`."""
    with _open(path) as file:
        metadata = file.metadata() or {}
    lacking = [name for name in names if name not in metadata]
    if lacking:
        raise InputError(f"'{path}' is a safetensors file without '{lacking[0]}' in its header; it is another model.")
    present = [*names, *(name for name in optional if name in metadata)]
    try:
        return {name: json.loads(metadata[name]) for name in present}
    except (ValueError, RecursionError):
        raise InputError(f"'{path}' has a header that cannot be read, it is damaged; download it again.") from None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors by name. Raises InputError where the file is no safetensors."""
    with _open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises InputError where it is missing or no safetensors file."""
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
