"""Search path, download folder and integrity checks of weight files on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.core.errors import InputError
from kdtalker.weights.pickle_scan import join_names

if TYPE_CHECKING:
    from kdtalker.weights.spec import Weight

FOLDER_VARIABLE = "KDTALKER_WEIGHTS"  # environment variable with a folder of published weights


def search_path(folder: Path | None = None) -> tuple[Path, ...]:
    """List the folders searched for published files: `folder`, $KDTALKER_WEIGHTS, ./weights, the user's cache."""
    named = os.path.expanduser(os.environ.get(FOLDER_VARIABLE, ""))
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    first = [Path(place) for place in (folder, named) if place]
    return (*first, Path("weights"), Path(cache) / "kdtalker")


def describe_search_path(folder: Path | None = None) -> str:
    """Format the search path for an error message."""
    return " or ".join(f"'{place.absolute()}'" for place in search_path(folder))


def download_folder(folder: Path | None = None) -> Path:
    """Choose the folder that published files are downloaded to: the first of the search path, ./weights only if it
    exists."""
    first, second, *others = search_path(folder)
    return first if others or os.path.isdir(first) else second


def find_in(weight: Weight, folders: Sequence[Path]) -> Path | None:
    """Find a file in the first folder that has it, by its name or its path in a repository; `.safetensors` before
    `.pth`, as it may be the converted form of a refused one."""
    names = [Path(weight.file), *(Path(source.path) for source in weight.published)]
    if weight.file.endswith(".pth"):
        names = [either for name in names for either in (name.with_suffix(".safetensors"), name)]
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if os.path.isfile(path)), None)


def integrity_error(weight: Weight, path: Path) -> str | None:
    """Describe why a file is unusable: it cannot be read, or differs from the bundled one; None where it is usable."""
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


def hash_mismatch(weight: Weight, path: Path) -> str | None:
    """Compare a published file's sha256 with the expected one; None where they match or none is known.

    Expected is the sha256 recorded at download, or else the table's, which is an unverified hint.
    """
    wanted = recorded_sha256(path) or weight.sha256
    if not wanted or path.suffix != Path(weight.file).suffix:  # a .safetensors is the same network in another format
        return None
    found = sha256_of(path)
    return None if found == wanted else f"its sha256 is {found}, expected was {wanted}"


def sha256_of(path: Path) -> str:
    """Compute a file's sha256: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def checksum_path(path: Path) -> Path:
    """Return the path of a file's recorded checksum, in the format of the command sha256sum."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str | None:
    """Read the sha256 recorded at download; None where there is no record."""
    try:
        noted = checksum_path(path).read_text("ascii", errors="replace")
    except OSError:
        return None
    match = re.match(r"[0-9a-f]{64}\b", noted)
    return match.group() if match else None


def verify(weight: Weight, path: Path, folder: Path | None = None) -> str:
    """Verify a file and return a clause that says by what it was verified. folder: for the hint in errors.

    Raises InputError where it is damaged, changed since download, or another file."""
    wrong = integrity_error(weight, path)
    if wrong:
        raise InputError(f"The weights '{path}' {wrong}: {weight.repair_hint(folder)}.")
    if not weight.published:
        return "good, sha256 as in the table"
    if path.suffix != Path(weight.file).suffix:
        from kdtalker.weights.header import tensor_shapes

        return f"there as {path.suffix} of {len(tensor_shapes(path))} tensors, which are not checked"
    differs, noted = hash_mismatch(weight, path), recorded_sha256(path)
    if differs and noted:
        raise InputError(f"The weights '{path}' are not those once fetched ({differs}): {weight.repair_hint(folder)}.")
    if differs:
        check_contents(weight, path)
        return f"another file than expected, used with a warning ({differs}; never checked against the published file)"
    if noted or weight.sha256:
        return "good, sha256 as when it was fetched" if noted else "good, sha256 as in the table"
    check_contents(weight, path)
    return "good as far as its contents tell"


def is_valid(weight: Weight, path: Path) -> bool:
    """Tell whether a file exists and passes all checks; one without known contents must match its sha256."""
    try:
        is_known = bool(weight.contents) or hash_mismatch(weight, path) is None
        return os.path.isfile(path) and is_known and bool(verify(weight, path))
    except (InputError, OSError):
        return False


def check_contents(weight: Weight, path: Path, *, stub_code: bool = False) -> None:
    """Check that a file holds the top-level names that the table expects, if any.

    stub_code: accept a `.pth` file with references to code too, as it can be converted. Raises InputError where the
    file cannot be read or lacks a name.
    """
    if not weight.contents:
        return
    held = _names_in(path, weight, stub_code)
    missing = [name for name in weight.contents if name not in held]
    if missing:
        some = join_names(held) or "nothing"
        raise InputError(f"'{path}' holds {some}, wanted {', '.join(missing)}; it is another file.")


def _names_in(path: Path, weight: Weight, stub_code: bool) -> set[str]:
    """Return the top-level names of a `.pth` file, or the expected arrays in an `.npz` file that are finite."""
    if weight.file.endswith(".pth"):
        from kdtalker.weights.pth import read_pth

        return {name for name in read_pth(path, stub_code=stub_code) if isinstance(name, str)}
    import numpy as np

    from kdtalker.core.npz import read_npz

    return {name for name, values in read_npz(path, weight.contents).items() if np.isfinite(values).all()}
