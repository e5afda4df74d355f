"""Read state dicts from weight files and load them strictly into networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdtalker.core.errors import InputError
from kdtalker.weights.pth import flatten_tensors, read_pth

Find = Callable[[str], Path]  # returns the path of a weight file by its name

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_MAX_REPORTED = 6  # differing tensors that an error message names


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` or `.safetensors` file; those in nested dicts are named `dict.tensor`.

    Raises InputError where the file cannot be read or holds code.
    """
    if path.suffix != ".safetensors":
        return flatten_tensors(read_pth(path), path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{path}' cannot be read as safetensors, it is damaged or cut short ({error}).") from None


def load_strictly(build: Callable[[], NetworkT], state: Mapping[str, Tensor], path: Path) -> NetworkT:
    """Build a network and load a state dict strictly: float32, eval mode, no gradients. path: for error messages.

    Raises InputError where names or shapes differ from the network's own.
    """
    with torch.device("meta"):
        network = build()
    wanted, found = network.state_dict(), dict(state)
    differences = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
    differences += [f"holds {name}" for name in sorted(found.keys() - wanted.keys())]
    differences += [
        f"holds {name} of the shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if differences:
        some = ", ".join(differences[:_MAX_REPORTED])
        more = f" and {len(differences) - _MAX_REPORTED} differences more" if len(differences) > _MAX_REPORTED else ""
        raise InputError(f"'{path}' is another network than the one of this name: it {some}{more}; download it again.")
    values = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    network.load_state_dict(values, strict=True, assign=True)
    return network.eval().requires_grad_(False)


Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # maps published parameter names to ours


def rename_entry(rename: Rename, path: Path, entry: str) -> dict[str, Tensor]:
    """Read the state dict under one entry of a checkpoint, or the whole file where it has no such entry, and rename its
    parameters to ours. Raises InputError where the file cannot be read or is another checkpoint."""
    tensors = read_tensors(path)
    inside = {key.removeprefix(f"{entry}."): value for key, value in tensors.items() if key.startswith(f"{entry}.")}
    try:
        return rename(inside or tensors)
    except InputError as error:
        raise InputError(f"'{path}' is another checkpoint than the one of this name: {error}") from None
