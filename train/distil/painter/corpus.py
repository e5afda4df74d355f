"""Load what painters learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from train.data.films import find_films
from train.distil.painter.kinds import KINDS, PainterKind


@dataclass(frozen=True)
class PainterCorpus:
    """Hold the records of films, of a painter's trainer, and a checksum of its teacher."""

    kind: PainterKind
    records: list[Any]
    teacher: int

    @staticmethod
    def load(recipe: Any) -> PainterCorpus:
        """Load the records of a recipe's films; missing ones are made. Raises InputError where no film is usable."""
        kind = KINDS[type(recipe)]
        films = find_films(list(recipe.films), list(recipe.tables))
        weights = kind.load_teacher(recipe.teacher).state_dict()
        checksum = 0
        for name in sorted(weights):
            checksum = crc32(weights[name].numpy().tobytes(), checksum)
        return PainterCorpus(kind, kind.load_records(films, recipe.records), checksum)

    def split(self, name: str) -> list[Any]:
        """Return the records of a split."""
        return [record for record in self.records if record.split == name]

    @cached_property
    def identity(self) -> dict[str, int]:
        """Return counts and checksums by which rows of results recognise their data."""
        checksum = 0
        for record in self.records:
            for value in vars(record).values():
                part = value[[0, -1]] if isinstance(value, np.ndarray) and value.ndim > 1 else value
                checksum = crc32(np.asarray(part).tobytes(), checksum)
        counts = {name: len(self.split(split)) for name, split in (("films", "train"), ("validation films", "val"))}
        return counts | {"checksum": checksum, "teacher": self.teacher}
