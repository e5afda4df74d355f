"""Read `.pth` files (pickles) safely: tensors and plain containers only, no code is imported or run.

The pickle is scanned for the names that it imports, then torch reads it with weights_only. The scan comes first as
torch before 2.6 could be made to run code even so (CVE-2025-32434). Stubs replace classes that no tensor needs.
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
from kdtalker.weights.pickle_scan import join_names, scan_pickle

if TYPE_CHECKING:
    from torch import Tensor

# Plain types that are built as they are, by the name in the pickle.
_ALLOWED: dict[str, Callable[..., Any]] = {
    **{f"builtins.{kind.__name__}": kind for kind in (bool, dict, float, int, list, str, tuple)},
    "collections.defaultdict": defaultdict,
}
# Classes replaced by stubs: checkpoints hold training settings (KDTalker's: omegaconf) and numpy scalars besides.
_STUBBED = re.compile(
    r"(omegaconf|typing|config\.structured)\.[\w.]+|argparse\.Namespace|pathlib\.[\w.]+|_operator\.getitem"
    r"|builtins\.(Ellipsis|type)|numpy\.(ndarray|dtype)|numpy\._?core\.\w+\.(scalar|_reconstruct|_frombuffer)"
)
# Names that torch allows with weights_only by itself.
_TORCH = re.compile(r"torch\..+|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|complex)")
_SYSTEM = re.compile(r"(sys|os|posix|nt)\..+|builtins\.bytearray")  # names for which torch accepts no stub
_MAX_OPCODES = 8_000_000  # opcodes in a pickle at most; a model of 1000 tensors has some 40,000
_MAX_COPIED = 2**30  # bytes copied by calls such as list(a_list) at most
_MAX_PICKLE_BYTES = 64 * 2**20  # of the pickle in a zipped file, without tensors
_LOCAL_HEADER = 30  # bytes of a zip member's local header
_MAX_NAMES, _MAX_NAME_LENGTH = 100_000, 1000  # entries in nested dicts, characters in a joined name, at most


class _Stub:
    """Stub of a class that is not needed; accepts any arguments and state and ignores them."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _StubDict:
    """Stub of a dict-like class (EasyDict, CfgNode): builds a plain OrderedDict instead."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def read_pth(path: Path, *, stub_code: bool = False) -> dict[str, Any]:
    """Read the dict in a `.pth` file, its tensors on the CPU (memory-mapped where the format allows).

    stub_code: replace references to code by stubs too instead of refusing them. Raises InputError where the file
    cannot be read, is cut short, is no `.pth`, or holds code or anything but a dict.
    """
    try:
        names, is_zipped = _names_in(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    except MemoryError:
        raise
    except Exception:  # a pickle that is cut short or damaged raises whatever its next byte stands for
        raise _damage_error(path) from None
    code = {
        name for name in names if name not in _ALLOWED and not _STUBBED.fullmatch(name) and not _TORCH.fullmatch(name)
    }
    if any(map(_SYSTEM.fullmatch, code)):
        raise InputError(f"'{path}' holds code ({join_names(code)}) that no weights need; it is refused.")
    if code and not stub_code:
        raise InputError(
            f"'{path}' holds code ({join_names(code)}), wanted tensors and plain values; {_conversion_hint(path)}."
        )
    content = _load(path, names, is_zipped, stub_code)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds one {type(content).__name__}, wanted tensors under names.")
    return content


def flatten_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Flatten nested dicts to one state dict with names `dict.tensor`; path: for error messages.

    Raises InputError for endless nesting, and for a tensor that is not dense or larger than its storage.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    dicts: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    entries = 0
    while dicts:
        prefix, values = dicts.pop()
        entries += len(values)
        for name, value in values.items():
            if not isinstance(name, str) and not (isinstance(name, int) and abs(name) < 2**63):
                continue  # no parameter has such a name
            key = f"{prefix}{name}"
            if entries > _MAX_NAMES or len(key) > _MAX_NAME_LENGTH:
                raise InputError(f"'{path}' holds dicts within dicts without end, wanted tensors under names.")
            if isinstance(value, torch.Tensor):
                if not _is_stored(value):
                    raise InputError(
                        f"'{path}' holds {join_names([key])} as a tensor of another kind than networks have."
                    )
                tensors[key] = value
            elif isinstance(value, Mapping):
                dicts.append((f"{key}.", value))
    return tensors


def _is_stored(tensor: Tensor) -> bool:
    """Tell whether a tensor is dense, on the CPU and no larger than its storage."""
    import torch

    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _conversion_hint(path: Path) -> str:
    return f"`kdtalker weights convert {shlex.quote(str(path))}` keeps its tensors alone"


def _damage_error(path: Path) -> InputError:
    return InputError(f"'{path}' cannot be read as a .pth file, it is damaged, cut short or another kind of file.")


def _names_in(path: Path) -> tuple[set[str], bool]:
    """Scan the names that a file's pickles import; tell whether it is in the zipped format (torch 1.6 and newer).

    Raises OSError, or whatever a damaged file ends in.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if not members:
                raise ValueError("no data.pkl")
            pickles = (_read_member(file, info) for info in members)
            return set().union(*(scan_pickle(each, _MAX_OPCODES, _MAX_COPIED) for each in pickles)), True
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            parts = ("magic number", "protocol", "system", "content")
            return set().union(*(scan_pickle(content, _MAX_OPCODES, _MAX_COPIED) for _ in parts)), False


def _read_member(file: io.BufferedReader, info: zipfile.ZipInfo) -> io.BytesIO:
    """Read an uncompressed zip member without checking its CRC, which torch may omit and zipfile insists on."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _MAX_PICKLE_BYTES:
        raise ValueError("compressed or too large")
    file.seek(info.header_offset)
    name, extra = struct.unpack("<26xHH", file.read(_LOCAL_HEADER))
    file.seek(name + extra, io.SEEK_CUR)
    return io.BytesIO(file.read(info.file_size))


def _load(path: Path, names: set[str], is_zipped: bool, stub_code: bool) -> Any:
    """Load the content by torch with weights_only. Raises InputError where torch refuses it, even with stubs."""
    import torch

    foreign = [name for name in names if stub_code or not _TORCH.fullmatch(name)]
    for kind in (_Stub, _StubDict):
        stubs: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
        stubs = [(_ALLOWED.get(name, type("Stub", (kind,), {})), name) for name in foreign]
        try:
            with torch.serialization.safe_globals(stubs), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about pickle protocols
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipped)
        except UnpicklingError:
            if not stub_code:
                raise InputError(
                    f"'{path}' holds more than tensors and plain values; {_conversion_hint(path)}."
                ) from None
        except MemoryError:
            raise
        except Exception:
            if kind is _StubDict or not stub_code:
                raise _damage_error(path) from None
    raise InputError(
        f"'{path}' holds what only the program that wrote it can read; let that write its tensors as .safetensors."
    )
