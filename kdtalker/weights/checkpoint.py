"""Read and write checkpoints: safetensors files whose header holds the configuration of their network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kdtalker.core.errors import OutputError
from kdtalker.core.files import AtomicFile
from kdtalker.weights.arrays import read_arrays


def write_checkpoint(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any], *, half: bool) -> None:
    """Write a checkpoint atomically: tensors, and a JSON value for each header name.

    half: matrices are stored as float16, vectors (gains, biases, frequencies) always as float32. Raises OutputError
    where there is no room.
    """
    kept = {name: value.detach().cpu().float().contiguous() for name, value in state.items()}
    if half:
        kept = {name: value.half() if value.ndim > 1 else value for name, value in kept.items()}
    write_safetensors(path, kept, {name: json.dumps(value) for name, value in header.items()})


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically; tensors must be contiguous and share no memory.

    Raises OutputError where there is no room, InputError where the name cannot be used.
    """
    with AtomicFile(path) as file:
        try:
            save_file(dict(tensors), file.partial, dict(metadata) if metadata else None)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"'{path}' cannot be written ({error}); make room or choose another place.") from None
        file.commit()


def read_checkpoint(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header's values under these names, and all tensors as float32 on the CPU. Raises InputError as
    `read_arrays`."""
    header, arrays = read_arrays(path, names)
    return header, {name: torch.from_numpy(value) for name, value in arrays.items()}
