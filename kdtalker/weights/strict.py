"""Read tensors from a weight file and load them strictly into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdtalker.core.errors import InputError
from kdtalker.weights.pth import flatten_tensors, read_pth

Find = Callable[[str], Path]

Network = TypeVar("Network", bound=nn.Module)

_NAMED = 6  # names that an error tells of


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.safetensors` file; those in dicts within it are named `dict.tensor`.

    Raises InputError where the file cannot be read, or holds code.
    """
    if path.suffix != ".safetensors":
        return flatten_tensors(read_pth(path), path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{path}' cannot be read as safetensors, it is damaged or cut short ({error}).") from None


def load_strictly(kind: Callable[[], Network], state: Mapping[str, Tensor], path: Path) -> Network:
    """The network with these tensors, float32, in eval mode; `path` is where they came from.

    Raises InputError where names or shapes differ from the network's own.
    """
    with torch.device("meta"):
        network = kind()
    wanted, found = network.state_dict(), dict(state)
    differences = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
    differences += [f"holds {name}" for name in sorted(found.keys() - wanted.keys())]
    differences += [
        f"holds {name} of the shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if differences:
        more = f" and {len(differences) - _NAMED} differences more" if len(differences) > _NAMED else ""
        raise InputError(
            f"'{path}' is another network than the one of this name: it {', '.join(differences[:_NAMED])}{more}; "
            "download it again."
        )
    values = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    network.load_state_dict(values, strict=True, assign=True)
    return network.eval().requires_grad_(False)


Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def rename_entry(rename: Rename, path: Path, entry: str) -> dict[str, Tensor]:
    """The tensors of one entry of a checkpoint, or of all where the file holds that entry alone, under our names."""
    tensors = read_tensors(path)
    inside = {key.removeprefix(f"{entry}."): value for key, value in tensors.items() if key.startswith(f"{entry}.")}
    try:
        return rename(inside or tensors)
    except InputError as error:
        raise InputError(f"'{path}' is another checkpoint than the one of this name: {error}") from None
