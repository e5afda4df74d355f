"""Convert a refused `.pth` file: its tensors alone, as `.safetensors`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.core.errors import InputError
from kdtalker.core.files import check_target
from kdtalker.weights.files import sha256_of
from kdtalker.weights.pth import flatten_tensors, read_pth

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = ".safetensors"  # of the file to write
_MAX_SHARING = 4  # size of all tensors over that of their storages at most: tied weights are written once each


def convert_pth(path: Path, target: Path | None = None) -> str:
    """Write the tensors of the file as `.safetensors` (default: beside it, under its name) and return a line about it.

    Tensors in dicts are named `dict.tensor`, which is what the readers of published weights take. Whatever else is in
    the file is left out, nothing of it is imported or called. A file that is named and already there is replaced once
    the new one is whole. Raises InputError for a file that cannot be read or has no tensors, and for a target that is
    another thing than a file or the input; OutputError where it cannot be written.
    """
    if not os.path.exists(path):
        raise InputError(f"There is no file '{path}' to convert.")
    if not path.is_file():
        raise InputError(f"'{path}' is a folder or a device, not a file; name a .pth file to convert.")
    if target is None:
        target = path.with_suffix(_SUFFIX)
        if os.path.lexists(target):
            raise InputError(f"'{target}' is there already; name the file to write, or remove it.")
    if target.suffix != _SUFFIX:
        raise InputError(f"'{target}' was asked for, wanted a name that ends in {_SUFFIX}.")
    check_target(target, [path])
    tensors = flatten_tensors(read_pth(path, stub_code=True), path)
    if not tensors:
        raise InputError(f"'{path}' holds no tensors under names, wanted weights.")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > _MAX_SHARING * sum(storages.values()):
        raise InputError(f"'{path}' holds many views of few numbers, {size:,} bytes in all; save the weights anew.")
    from kdtalker.weights.checkpoint import write_safetensors

    write_safetensors(target, _unshare(tensors))
    size = target.stat().st_size
    return f"{target}: {len(tensors)} tensors of '{path}', {size:,} bytes, sha256 {sha256_of(target)}"


def _unshare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors where they are not contiguous or share memory with another."""
    separate: dict[str, Tensor] = {}
    seen_storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        is_whole = tensor.is_contiguous() and tensor.numel() * tensor.element_size() == storage.nbytes()
        separate[name] = (
            tensor.detach() if is_whole and storage.data_ptr() not in seen_storages else tensor.detach().clone()
        )
        separate[name] = separate[name].contiguous()
        seen_storages.add(storage.data_ptr())
    return separate
