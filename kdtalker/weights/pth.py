"""`.pth` files, which are pickles: tensors and plain containers are read, nothing in them is ever run or imported.

The pickle is looked through for the names it asks for, then torch reads it by weights_only, in which torch before 2.6
could be tricked into running code (CVE-2025-32434). Names beside the tensors' own are read as blanks.
"""

from __future__ import annotations

import io
import mmap
import re
import shlex
import struct
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from kdtalker.core.errors import InputError
from kdtalker.weights.pickle_scan import listed, scan_pickle

if TYPE_CHECKING:
    from torch import Tensor

_PLAIN: dict[str, Callable[..., Any]] = {
    **{f"builtins.{kind.__name__}": kind for kind in (bool, dict, float, int, list, str, tuple)},
    "collections.defaultdict": defaultdict,
}
# Beside the weights trainers keep settings (KDTalker's by omegaconf) and numbers of numpy: nobody here reads them.
_BLANK = re.compile(
    r"(omegaconf|typing|config\.structured)\.[\w.]+|argparse\.Namespace|pathlib\.[\w.]+|_operator\.getitem"
    r"|builtins\.(Ellipsis|type)|numpy\.(ndarray|dtype)|numpy\._?core\.\w+\.(scalar|_reconstruct|_frombuffer)"
)
_TORCH = re.compile(r"torch\..+|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|complex)")
_SYSTEM = re.compile(r"(sys|os|posix|nt)\..+|builtins\.bytearray")  # of which torch takes no blank
_MOST_OPCODES = 8_000_000  # of a pickle; a model of 1000 tensors has some 40,000
_MOST_COPIED = 2**30  # bytes, by calls such as list() of a list that is there already
_LARGEST_PICKLE = 64 * 2**20  # in a zip, the tensors left out
_LOCAL_HEADER = 30
_MOST_NAMES, _LONGEST_NAME = 100_000, 1000


class _Blank:
    """Stands for an object of a library that is not needed; takes whatever the pickle gives it and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _BlankDict:
    """Stands for an object that the pickle fills like a dict (EasyDict, CfgNode): a plain one is made instead."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def read_pth(path: Path, *, blank: bool = False) -> dict[str, Any]:
    """Read the dict in the file, its tensors on the CPU (mapped from the file where its format allows).

    blank: names of code are read as blanks too, instead of being refused. Raises InputError where the file cannot be
    read, is cut short, is no `.pth`, or holds code or anything but a dict.
    """
    try:
        names, is_zipped = _names_in(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    except MemoryError:
        raise
    except Exception:  # a pickle that is cut short or damaged raises whatever its next byte stands for
        raise _damaged(path) from None
    code = {name for name in names if name not in _PLAIN and not _BLANK.fullmatch(name) and not _TORCH.fullmatch(name)}
    if any(map(_SYSTEM.fullmatch, code)):
        raise InputError(f"'{path}' holds code ({listed(code)}) that no weights need; it is refused.")
    if code and not blank:
        raise InputError(f"'{path}' holds code ({listed(code)}), wanted tensors and plain values; {_way_out(path)}.")
    content = _load(path, names, is_zipped, blank)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds one {type(content).__name__}, wanted tensors under names.")
    return content


def flatten_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a dict that came from the file, those in dicts within it under `dict.tensor`.

    Raises InputError for a dict without end, and for a tensor that is not dense or larger than what is stored of it.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    dicts: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    seen = 0
    while dicts:
        prefix, values = dicts.pop()
        seen += len(values)
        for name, value in values.items():
            if not isinstance(name, str) and not (isinstance(name, int) and abs(name) < 2**63):
                continue  # which no network has as a name
            key = f"{prefix}{name}"
            if seen > _MOST_NAMES or len(key) > _LONGEST_NAME:
                raise InputError(f"'{path}' holds dicts within dicts without end, wanted tensors under names.")
            if isinstance(value, torch.Tensor):
                if not _is_stored(value):
                    raise InputError(f"'{path}' holds {listed([key])} as a tensor of another kind than networks have.")
                tensors[key] = value
            elif isinstance(value, Mapping):
                dicts.append((f"{key}.", value))
    return tensors


def _is_stored(tensor: Tensor) -> bool:
    import torch

    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _way_out(path: Path) -> str:
    return f"`kdtalker weights convert {shlex.quote(str(path))}` keeps its tensors alone"


def _damaged(path: Path) -> InputError:
    return InputError(f"'{path}' cannot be read as a .pth file, it is damaged, cut short or another kind of file.")


def _names_in(path: Path) -> tuple[set[str], bool]:
    """Return the names that the file's pickles ask for, and whether it is in the zipped format (torch 1.6 and newer).

    Raises OSError, or whatever a damaged file ends in.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if not members:
                raise ValueError("no data.pkl")
            pickles = (_stored(file, info) for info in members)
            return set().union(*(scan_pickle(each, _MOST_OPCODES, _MOST_COPIED) for each in pickles)), True
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            parts = ("magic number", "protocol", "system", "content")
            return set().union(*(scan_pickle(content, _MOST_OPCODES, _MOST_COPIED) for _ in parts)), False


def _stored(file: io.BufferedReader, info: zipfile.ZipInfo) -> io.BytesIO:
    """Return a member that is not compressed; torch may have left out its CRC, on which zipfile would insist."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _LARGEST_PICKLE:
        raise ValueError("compressed or too large")
    file.seek(info.header_offset)
    name, extra = struct.unpack("<26xHH", file.read(_LOCAL_HEADER))
    file.seek(name + extra, io.SEEK_CUR)
    return io.BytesIO(file.read(info.file_size))


def _load(path: Path, names: set[str], is_zipped: bool, blank: bool) -> Any:
    """Read the content by torch. Raises InputError where torch does not take it, even with blanks for all names."""
    import torch

    foreign = [name for name in names if blank or not _TORCH.fullmatch(name)]
    for kind in (_Blank, _BlankDict):
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
        stand_ins = [(_PLAIN.get(name, type("Blank", (kind,), {})), name) for name in foreign]
        try:
            with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch writes of pickle protocols there
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipped)
        except UnpicklingError:
            if not blank:
                raise InputError(f"'{path}' holds more than tensors and plain values; {_way_out(path)}.") from None
        except MemoryError:
            raise
        except Exception:
            if kind is _BlankDict or not blank:
                raise _damaged(path) from None
    raise InputError(
        f"'{path}' holds what only the program that wrote it can read; let that write its tensors as .safetensors."
    )
