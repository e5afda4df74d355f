"""Read `.npz` files that anyone may have written: each header is held against the zip before anything is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kdtalker.core.errors import InputError

LARGEST_BYTES = 300_000_000  # of all arrays that are read, together: 11 hours of motion
_LONGEST_TEXT_BYTES = 1024
_FLOAT_BYTES = 4
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(
    path: Path, names: Iterable[str], text: Iterable[str] = (), aligned: Iterable[str] = ()
) -> dict[str, NDArray[Any]]:
    """Read those of the named arrays that the file holds: numbers as float32 (inf where they are too large), and the
    names in `text` as text. Those in `aligned` must be equally long.

    Raises InputError where the file is missing, damaged or no `.npz`, and where an array holds anything else, is larger
    than the file can hold, is of another length, or with the others larger than LARGEST_BYTES as float32.
    """
    with _opened(path) as (archive, members):
        kinds = {**dict.fromkeys(names, "biuf"), **dict.fromkeys(text, "U")}
        wanted = {name: members[name] for name in kinds if name in members}
        shapes = {name: _checked_shape(archive, info, kinds[name], path) for name, info in wanted.items()}
        if len({shapes[name][:1] for name in aligned if name in shapes}) > 1:
            raise InputError(f"'{path}' holds arrays of different lengths, wanted one row for each frame.")
        size = sum(_FLOAT_BYTES * math.prod(shape) for shape in shapes.values())
        if size > LARGEST_BYTES:
            raise InputError(f"'{path}' holds {size:,} bytes of numbers, wanted at most {LARGEST_BYTES:,}.")
        return {name: _read(archive, info) for name, info in wanted.items()}


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays. Raises InputError where the file is missing, damaged or no `.npz`."""
    with _opened(path) as (_, members):
        return list(members)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open the zip and give its members by the names of their arrays; every error in it ends in InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"There is no file '{path}'.") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from None
    except Exception:  # of zipfile, zlib and numpy, which have no common class
        raise InputError(f"'{path}' cannot be read as .npz, it is damaged, encrypted or no .npz.") from None


def _checked_shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str, path: Path) -> tuple[int, ...]:
    """Return the shape of an array. Raises InputError where its header tells of another kind or of other bytes."""
    with archive.open(info) as member:
        try:
            shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
        except MemoryError:  # which the parser raises for nonsense too
            raise ValueError from None
        held = info.file_size - member.tell()
    name = info.filename.removesuffix(".npy")
    if dtype.kind not in kinds or (dtype.kind == "U" and held > _LONGEST_TEXT_BYTES):
        wanted = "text" if kinds == "U" else "numbers"
        raise InputError(f"'{path}' holds something else as {name}, wanted {wanted}; it is another file.")
    if math.prod(shape) * dtype.itemsize != held:
        raise InputError(f"'{path}' says that {name} has the shape {str(shape)[:60]} and holds {held:,} bytes of it.")
    return tuple(map(int, shape))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    with np.errstate(all="ignore"):
        return array if array.dtype.kind == "U" else array.astype(np.float32, copy=False)
