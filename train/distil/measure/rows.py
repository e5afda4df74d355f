"""Rows of results, a small JSON file each, so that they can be committed and several processes write them at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from train.harness.figures import Metrics

DIGITS = 5


@dataclass(frozen=True)
class ResultRow:
    """Hold the result of one run, or of one system that was measured: its name and seed; settings that made it; counts
    that identify the data; commit; steps; cost, figures by name; means over clips, and the figures of each clip."""

    name: str
    seed: int
    settings: dict[str, Any]
    data: dict[str, int]
    commit: str
    steps: int
    cost: dict[str, Any]
    means: Metrics
    clips: dict[str, Metrics]

    def save(self, folder: Path) -> Path:
        """Write the row into a folder of rows; return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = row_path(folder, self.name, self.seed)
        self.save_as(path)
        return path

    def save_as(self, path: Path) -> None:
        """Write the row atomically, figures rounded to five digits, one a line."""
        names = sorted({name for figures in self.clips.values() for name in figures})
        by_figure = {name: [_rounded(figures.get(name)) for figures in self.clips.values()] for name in names}
        values = {**vars(self), "cost": _rounded(self.cost), "means": _rounded(self.means)}
        del values["clips"]
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
        figures = ",\n".join(f" {json.dumps(name)}: {json.dumps(values)}" for name, values in by_figure.items())
        lines += [f'"clips": {json.dumps(list(self.clips))}', f'"figures": {{\n{figures}\n}}']
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    @staticmethod
    def load(path: Path) -> ResultRow:
        """Read what `save` wrote. Raises InputError for another file."""
        try:
            values = json.loads(path.read_text("utf-8"))
            names, figures = values.pop("clips"), values.pop("figures")
            clips = {
                clip: {name: found[at] for name, found in figures.items() if found[at] is not None}
                for at, clip in enumerate(names)
            }
            return ResultRow(**values, clips=clips)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"'{path}' is no row of results ({error}); remove it and measure again.") from None

    def difference(self, settings: Mapping[str, Any], defaults: Mapping[str, Any], data: Mapping[str, int]) -> str:
        """Describe how the row was made with other settings or data than these, empty where it was not. Settings that
        are newer than the row count as their defaults."""
        for name, value in settings.items():
            old = self.settings.get(name, defaults.get(name))
            if _plain(old) != _plain(value):
                return f"{name} = {old!r}, now it is {value!r}"
        return "" if self.data == dict(data) else f"data of {self.data}, now they are {dict(data)}"


def row_path(folder: Path, name: str, seed: int) -> Path:
    """Return the file of a row, by its name and seed."""
    return folder / f"{re.sub(r'[^0-9A-Za-z.]+', '-', name).strip('-')}-{seed}.json"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
