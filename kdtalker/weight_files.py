"""Weight files on disk: where published ones are looked for and put, and what is checked before any is used."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.errors import InputError

if TYPE_CHECKING:
    from kdtalker.weights import Weight

FOLDER_VARIABLE = "KDTALKER_WEIGHTS"


def folders(folder: Path | None = None) -> tuple[Path, ...]:
    """Where published files are looked for: that folder, $KDTALKER_WEIGHTS, ./weights, the user's cache."""
    named = os.path.expanduser(os.environ.get(FOLDER_VARIABLE, ""))
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    first = [Path(place) for place in (folder, named) if place]
    return (*first, Path("weights"), Path(cache) / "kdtalker")


def told(folder: Path | None = None) -> str:
    """The `folders` in words, for an error."""
    return " or ".join(f"'{place.absolute()}'" for place in folders(folder))


def destination(folder: Path | None = None) -> Path:
    """The first of `folders`, where a published file is put; ./weights only if it is there."""
    first, second, *others = folders(folder)
    return first if others or first.is_dir() else second


def first_of(weight: Weight, places: Sequence[Path]) -> Path | None:
    """The file in the first folder that has it: by its name, its path in a repository, or as `.safetensors`."""
    names = [weight.file, *(source.path for source in weight.published)]
    if weight.file.endswith(".pth"):
        names.append(str(Path(weight.file).with_suffix(".safetensors")))
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def fault(weight: Weight, path: Path) -> str | None:
    """What is wrong with the file there by its size and sha256; None if nothing can be told.

    Where the table has no sha256, the one counts that was noted when the file was fetched.
    """
    if path.suffix != Path(weight.file).suffix:
        return None  # the same network in another format, of which nothing is known
    try:
        size = path.stat().st_size
        if weight.bytes is not None and size != weight.bytes:
            return f"have {size:,} bytes, wanted {weight.bytes:,}"
        wanted = weight.sha256 or noted_sha256(path)
        if wanted and sha256_of(path) != wanted:
            return "are not those of this version (sha256)" if weight.sha256 else "are not those once fetched (sha256)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def sha256_of(path: Path) -> str:
    """The file's sha256, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def note_path(path: Path) -> Path:
    """Where a fetched file's sha256 is noted, in the format of the command sha256sum."""
    return path.with_name(f"{path.name}.sha256")


def noted_sha256(path: Path) -> str | None:
    """The sha256 noted beside the file; None where there is no such note."""
    try:
        noted = note_path(path).read_text("ascii", errors="replace")
    except OSError:
        return None
    match = re.match(r"[0-9a-f]{64}\b", noted)
    return match.group() if match else None


def verify(weight: Weight, path: Path, folder: Path | None = None) -> str:
    """What the file there, found with that folder first, is good by. Raises InputError where it is not good."""
    wrong = fault(weight, path)
    if wrong:
        raise InputError(f"The weights '{path}' {wrong}: {weight.remedy(folder)}.")
    if path.suffix != Path(weight.file).suffix:
        return "there in another format, not checked"
    if weight.sha256:
        return "good, sha256 as in the table"
    if noted_sha256(path):
        return "good, sha256 as when it was fetched"
    check_contents(weight, path)
    return "good as far as its contents tell"


def is_good(weight: Weight, path: Path) -> bool:
    """Whether the file is there and nothing speaks against it."""
    try:
        return path.is_file() and bool(verify(weight, path))
    except InputError:
        return False


def check_contents(weight: Weight, path: Path) -> None:
    """Raises InputError where the file cannot be read safely or lacks the names that this weight has, if any."""
    if not weight.contents:
        return
    held = _names_in(path, Path(weight.file).suffix, weight.contents)
    missing = [name for name in weight.contents if name not in held]
    if missing:
        some = ", ".join(sorted(held)[:3]) or "nothing"
        raise InputError(f"'{path}' holds {some}, wanted {', '.join(missing)}; it is another file.")


def _names_in(path: Path, suffix: str, names: Sequence[str]) -> set[str]:
    """Return the names at the top level of a `.pth` file, or those of the named arrays that an `.npz` file holds."""
    if suffix == ".pth":
        from kdtalker.pth import read_pth

        return set(map(str, read_pth(path)))
    import numpy as np

    from kdtalker.npz import read_npz

    return {name for name, values in read_npz(path, names).items() if np.isfinite(values).all()}
