"""Weight files on disk: where published ones are looked for and put, and what is checked before any is used."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.core.errors import InputError
from kdtalker.weights.pickle_scan import listed

if TYPE_CHECKING:
    from kdtalker.weights.spec import Weight

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
    return first if others or os.path.isdir(first) else second


def first_of(weight: Weight, places: Sequence[Path]) -> Path | None:
    """The file in the first folder that has it, by its name or its path in a repository; `.safetensors` before `.pth`,
    for those may be what a refused one was converted to."""
    names = [Path(weight.file), *(Path(source.path) for source in weight.published)]
    if weight.file.endswith(".pth"):
        names = [either for name in names for either in (name.with_suffix(".safetensors"), name)]
    return next((place / name for place in places for name in names if os.path.isfile(place / name)), None)


def fault(weight: Weight, path: Path) -> str | None:
    """Return what is wrong with the file: it cannot be read, or is not the one that the package came with."""
    try:
        if weight.published:
            path.open("rb").close()
            return None
        size = path.stat().st_size
        if weight.bytes is not None and size != weight.bytes:
            return f"have {size:,} bytes, wanted {weight.bytes:,}"
        return None if sha256_of(path) == weight.sha256 else "are not those of this version (sha256)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def difference(weight: Weight, path: Path) -> str | None:
    """Return how a published file differs from the one that is expected; None where it does not or nothing is known.

    Expected is the sha256 that was noted when the file was fetched, or else the table's, which is a hint: nobody has
    checked it against the published file.
    """
    wanted = noted_sha256(path) or weight.sha256
    if not wanted or path.suffix != Path(weight.file).suffix:  # a .safetensors is the same network in another format
        return None
    found = sha256_of(path)
    return None if found == wanted else f"its sha256 is {found}, expected was {wanted}"


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
    if not weight.published:
        return "good, sha256 as in the table"
    if path.suffix != Path(weight.file).suffix:
        from kdtalker.weights.header import tensor_shapes

        return f"there as {path.suffix} of {len(tensor_shapes(path))} tensors, which are not checked"
    differs, noted = difference(weight, path), noted_sha256(path)
    if differs and noted:
        raise InputError(f"The weights '{path}' are not those once fetched ({differs}): {weight.remedy(folder)}.")
    if differs:
        check_contents(weight, path)
        return f"another file than expected, used with a warning ({differs}; never checked against the published file)"
    if noted or weight.sha256:
        return "good, sha256 as when it was fetched" if noted else "good, sha256 as in the table"
    check_contents(weight, path)
    return "good as far as its contents tell"


def is_good(weight: Weight, path: Path) -> bool:
    """Whether the file is there and nothing speaks against it; of a file without known contents that is its sha256."""
    try:
        is_known = bool(weight.contents) or difference(weight, path) is None
        return os.path.isfile(path) and is_known and bool(verify(weight, path))
    except (InputError, OSError):
        return False


def check_contents(weight: Weight, path: Path, *, blank: bool = False) -> None:
    """Raises InputError where the file cannot be read or lacks the names that this weight has, if any.

    blank: a `.pth` file with names of code in it is taken too, for those can be converted.
    """
    if not weight.contents:
        return
    held = _names_in(path, weight, blank)
    missing = [name for name in weight.contents if name not in held]
    if missing:
        some = listed(held) or "nothing"
        raise InputError(f"'{path}' holds {some}, wanted {', '.join(missing)}; it is another file.")


def _names_in(path: Path, weight: Weight, blank: bool) -> set[str]:
    """Return the names at the top level of a `.pth` file, or those of the weight's arrays that an `.npz` file holds."""
    if weight.file.endswith(".pth"):
        from kdtalker.weights.pth import read_pth

        return {name for name in read_pth(path, blank=blank) if isinstance(name, str)}
    import numpy as np

    from kdtalker.core.npz import read_npz

    return {name for name, values in read_npz(path, weight.contents).items() if np.isfinite(values).all()}
