"""Keep the results of a benchmark: figures with their raw values, machine, versions and commit, as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdtalker.core.errors import InputError
from train.harness.provenance import describe_commit, describe_machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "bench"
SCHEMA = 1
PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless", "av", "ai-edge-litert", "imageio-ffmpeg")


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that take the time."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


@dataclass
class BenchRecord:
    """Hold the results of a benchmark.

    name: of the JSON file; benchmark: the command; commit: of the code that was measured; figures: by name with unit
    (a ratio has none), one value a round; rounds: raw values from which the figures were computed; schema, date (UTC),
    machine and versions: of the run, filled in by themselves.
    """

    name: str
    benchmark: str
    commit: str = field(default_factory=lambda: describe_commit(ROOT))
    figures: dict[str, list[float]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    schema: int = SCHEMA
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    machine: dict[str, Any] = field(default_factory=describe_machine)
    versions: dict[str, str] = field(default_factory=describe_versions)

    def add(self, figures: Mapping[str, float], raw: Mapping[str, Any]) -> None:
        """Add the figures of one round and the raw values behind them."""
        self.rounds.append(dict(raw))
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def save(self) -> Path:
        """Write NAME.json into RESULTS; returns its path."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")
        return path

    @staticmethod
    def load(path: Path) -> BenchRecord:
        """Read what `save` wrote. Raises InputError for another file."""
        try:
            record = BenchRecord(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"'{path}' is no result of a benchmark ({error}).") from None
        if record.schema != SCHEMA:
            raise InputError(f"'{path}' has the schema {record.schema}, wanted {SCHEMA}; measure it again.")
        return record

    def table(self) -> str:
        """Format the median, lowest and highest value of each figure."""
        rows = [
            (name, number(statistics.median(values)), number(min(values)), number(max(values)), str(len(values)))
            for name, values in self.figures.items()
        ]
        return align([("figure", "median", "lowest", "highest", "rounds"), *rows])


def number(value: float) -> str:
    """Format a number with three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Format a table in columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(lines)
