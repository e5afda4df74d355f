"""Shards: stretches of tracked film, the food of every trainer here. One .npz a stretch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import Motion

PUBLISHED = "liveportrait"  # the folder beside the shards for motion in that keypoint space


@dataclass(frozen=True)
class Shard:
    """A stretch of T frames at 25 fps without a cut, one face in every frame.

    landmarks (T, 468, 3) picture px, lids as the iris model sees them; sound (640 T,) float16 at 16 kHz; synced tells
    whether the sound is that of the mouth at all, lag_frames by how much the mouth is later than it; speaker and split
    ("train", "val") as the table of the films says; film the path that it came from, start_frame its place in there.
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
        """The stem of its file."""
        return f"{self.film.replace('/', '__')}_{self.start_frame:06d}"

    def save(self, folder: Path) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        write_atomically(folder / f"{self.name}.npz", lambda file: np.savez(file, **values))

    @staticmethod
    def load(path: Path) -> Shard:
        """Raises InputError for a file that is no shard."""
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
    """The files of all shards of a folder in the order of their names; none that is only half written."""
    return sorted(folder.glob("*.npz"))


def load_shards(folder: Path) -> Iterator[Shard]:
    """All shards of a folder in the order of their names. Raises InputError where there are none."""
    paths = shard_paths(folder)
    if not paths:
        raise InputError(f"'{folder}' holds no shards; make some with `python -m train.data FILMS --out {folder}`.")
    return map(Shard.load, paths)


def save_published(folder: Path, shard: Shard, motion: Motion, canonical: Array) -> None:
    """Beside a shard its motion (T) and canonical keypoints (21, 3) as LivePortrait's networks see them."""
    (folder / PUBLISHED).mkdir(exist_ok=True)
    values = {"motion": motion.vector(), "canonical": canonical}
    write_atomically(folder / PUBLISHED / f"{shard.name}.npz", lambda file: np.savez(file, **values))


def load_published(folder: Path, shard: Shard) -> tuple[Motion, Array]:
    """What `save_published` wrote. Raises InputError where it is not there."""
    try:
        with np.load(folder / PUBLISHED / f"{shard.name}.npz") as file:
            return Motion.from_vector(file["motion"], PUBLISHED), file["canonical"]
    except (KeyError, ValueError, OSError, BadZipFile):
        raise InputError(
            f"The shards in '{folder}' hold no motion of the keypoint space '{PUBLISHED}' ({shard.film}); make "
            "them with `python -m train.data --published`, or train in the space 'mesh'."
        ) from None
