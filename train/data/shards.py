"""Read and write shards, the training data format: one tracked clip per .npz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import Motion

PUBLISHED = "liveportrait"  # keypoint space, and the folder beside the shards that holds motion in it


@dataclass(frozen=True)
class Shard:
    """Hold a clip of T frames at 25 fps without a cut, one face in every frame.

    landmarks (T, 468, 3) in px, eyelids by the iris model; sound (640 T,) float16 at 16 kHz; synced: whether the sound
    belongs to the mouth; lag_frames: by how many frames the mouth is later than the sound; speaker and split ("train",
    "val"); film: name of the source film; start_frame: the clip's first frame in it.
    """

    landmarks: NDArray[np.float32]
    sound: NDArray[np.float16]
    synced: bool
    lag_frames: int
    speaker: str
    split: str
    film: str
    start_frame: int

    @property
    def name(self) -> str:
        """Return the stem of the shard's file."""
        return f"{self.film.replace('/', '__')}_{self.start_frame:06d}"

    def save(self, folder: Path) -> None:
        """Write the shard atomically as FOLDER/NAME.npz."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        write_atomically(folder / f"{self.name}.npz", lambda file: np.savez(file, **values))

    @staticmethod
    def load(path: Path) -> Shard:
        """Read a shard. Raises InputError for a file that is not one."""
        try:
            with np.load(path) as file:
                values = {field.name: file[field.name] for field in fields(Shard)}
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
            raise InputError(
                f"'{path}' is no shard of this program ({error}); make it again with train.data."
            ) from None
        plain = {name: value.item() for name, value in values.items() if value.ndim == 0}
        return Shard(**(values | plain))


def shard_paths(folder: Path) -> list[Path]:
    """List the files of all complete shards of a folder, sorted by name."""
    return sorted(folder.glob("*.npz"))


def load_shards(folder: Path) -> Iterator[Shard]:
    """Iterate over all shards of a folder, sorted by name. Raises InputError where there are none."""
    paths = shard_paths(folder)
    if not paths:
        raise InputError(f"'{folder}' holds no shards; make some with `python -m train.data FILMS --out {folder}`.")
    return map(Shard.load, paths)


def save_published(folder: Path, shard: Shard, motion: Motion, canonical: Array) -> None:
    """Save a shard's motion (T) and canonical keypoints (21, 3) in LivePortrait's keypoint space beside it."""
    (folder / PUBLISHED).mkdir(exist_ok=True)
    values: dict[str, Any] = {"motion": motion.vector(), "canonical": canonical}
    write_atomically(folder / PUBLISHED / f"{shard.name}.npz", lambda file: np.savez(file, **values))


def load_published(folder: Path, shard: Shard) -> tuple[Motion, Array]:
    """Read motion and canonical keypoints of `save_published`. Raises InputError where they are missing."""
    try:
        with np.load(folder / PUBLISHED / f"{shard.name}.npz") as file:
            return Motion.from_vector(file["motion"], PUBLISHED), file["canonical"]
    except (KeyError, ValueError, OSError, BadZipFile):
        raise InputError(
            f"The shards in '{folder}' hold no motion of the keypoint space '{PUBLISHED}' ({shard.film}); make "
            "them with `python -m train.data --published`, or train in the space 'mesh'."
        ) from None
