"""`.pth` files, which are pickles: tensors and plain containers are read, nothing in them is ever run.

This rests on torch's weights_only, which torch before 2.6 could be tricked into running code with (CVE-2025-32434).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from kdtalker.errors import InputError

# KDTalker's trainer keeps its settings beside the weights. Plain values stay what they are, settings become blanks.
_PLAIN: dict[str, Callable[..., Any]] = {
    **{f"builtins.{kind.__name__}": kind for kind in (bool, dict, float, int, list, str, tuple)},
    "collections.defaultdict": defaultdict,
}
_SETTINGS = re.compile(r"(omegaconf|typing|config\.structured)\.[\w.]+")


class _Blank:
    """Stands for an object of a library that is not needed; takes whatever the pickle gives it and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def read_pth(path: Path) -> dict[str, Any]:
    """The dict in the file, its tensors on the CPU (mapped from the file where its format allows).

    Raises InputError where the file cannot be read, is cut short, is no `.pth` or holds code or anything but a dict.
    """
    import torch

    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from None
    try:
        zipped = zipfile.is_zipfile(path)  # the format of torch 1.6 and newer
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if zipped else []
        with torch.serialization.safe_globals(_stand_ins(foreign, path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch writes of pickle protocols there
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UnpicklingError:
        raise InputError(
            f"'{path}' holds more than tensors and plain values, or is no .pth file; it is refused."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"'{path}' cannot be read as a .pth file, it is damaged or cut short.") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds one {type(content).__name__}, wanted tensors under names.")
    return content


def _stand_ins(foreign: list[str], path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What each foreign name is read as. Raises InputError for a name that is neither a plain value nor a setting."""
    refused = [name for name in foreign if name not in _PLAIN and not _SETTINGS.fullmatch(name)]
    if refused:
        raise InputError(
            f"'{path}' holds code ({', '.join(sorted(refused))}), wanted tensors and plain values; it is refused."
        )
    return [(_PLAIN.get(name, type("Blank", (_Blank,), {})), name) for name in foreign]
