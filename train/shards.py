"""Shards: stretches of tracked film, the food of every trainer here. One .npz a stretch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.errors import InputError


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
        partial = folder / f"{self.name}.part.npz"
        np.savez(partial, **{field.name: getattr(self, field.name) for field in fields(self)})
        partial.replace(folder / f"{self.name}.npz")

    @staticmethod
    def load(path: Path) -> Shard:
        with np.load(path) as file:
            values = {field.name: file[field.name] for field in fields(Shard)}
        plain = {name: value.item() for name, value in values.items() if value.ndim == 0}
        return Shard(**(values | plain))


def shard_paths(folder: Path) -> list[Path]:
    """The files of all shards of a folder in the order of their names; none that is only half written."""
    return [path for path in sorted(folder.glob("*.npz")) if not path.name.endswith(".part.npz")]


def load_shards(folder: Path) -> list[Shard]:
    """All shards of a folder in the order of their names. Raises InputError where there are none."""
    shards = [Shard.load(path) for path in shard_paths(folder)]
    if not shards:
        raise InputError(f"'{folder}' holds no shards; make some with `python -m train.data FILMS --out {folder}`.")
    return shards
