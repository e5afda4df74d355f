"""Checkpoints: one safetensors file whose header says everything about the tensors in it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdtalker.errors import InputError, OutputError


def write_checkpoint(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any], *, half: bool) -> None:
    """Write tensors and a JSON value for each header name; a reader sees the old file or the whole new one.

    half: matrices are stored as float16, vectors (gains, biases, frequencies) always as float32. Raises OutputError
    where there is no room.
    """
    kept = {name: value.detach().cpu().float().contiguous() for name, value in state.items()}
    if half:
        kept = {name: value.half() if value.ndim > 1 else value for name, value in kept.items()}
    write_safetensors(path, kept, {name: json.dumps(value) for name, value in header.items()})


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors that share no memory; a reader sees the old file or the whole new one.

    Raises OutputError where there is no room.
    """
    partial = path.with_name(f".kdtalker-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        save_file(dict(tensors), partial, dict(metadata) if metadata else None)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"'{path}' cannot be written ({error}); make room or choose another place.") from None
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header's values under these names, and all tensors as float32 on the CPU.

    Raises InputError where the file is missing, a folder, truncated, no safetensors or lacks a name.
    """
    if not path.exists():
        raise InputError(f"There is no model file '{path}'; see weights/README.md for where to get it.")
    if not path.is_file():
        raise InputError(f"'{path}' is not a file, wanted a model (.safetensors).")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
        header = {name: json.loads(metadata[name]) for name in names}
    except KeyError as error:
        raise InputError(
            f"'{path}' is a safetensors file without {error} in its header; it is another model."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be read as a model, it is truncated or not safetensors ({error}); download it again."
        ) from None
    return header, state
