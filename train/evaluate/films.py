"""Figures of finished films, ours or another system's: `python -m train.evaluate films`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.rates import FRAME_RATE_HZ
from train.data.films import SUFFIXES
from train.evaluate.metrics import MEASURES
from train.evaluate.syncnet import LSE, SyncNet, lse_measures
from train.evaluate.tracked import SeenFilm, Tools, look_at
from train.harness.figures import Figure, save_figure

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """A film with its figures and, where there is one, its reference with its own."""

    film: SeenFilm
    figures: Figures
    reference: SeenFilm | None = None
    real: Figures | None = None


def find_pairs(films: Path, reference: Path | None) -> list[tuple[Path, Path | None]]:
    """Films, a file or those of a folder, each with the reference of its name. Raises InputError where there are none
    or one has no partner."""
    paths = [films] if films.is_file() else sorted(path for path in films.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"No films were found in '{films}'; wanted {', '.join(sorted(SUFFIXES))}.")
    if reference is None:
        return [(path, None) for path in paths]
    if reference.is_file() and len(paths) == 1:
        return [(paths[0], reference)]
    partners = {path.stem: path for path in sorted(reference.glob("*")) if path.suffix.lower() in SUFFIXES}
    missing = [path.name for path in paths if path.stem not in partners]
    if missing:
        raise InputError(f"'{reference}' has no film of the name of {', '.join(missing)}, wanted one for each film.")
    return [(path, partners[path.stem]) for path in paths]


def measure_films(pairs: list[tuple[Path, Path | None]], syncnet: Path | None) -> tuple[list[Row], dict[str, str]]:
    """Figures of all films, and of those that could not be measured the reason. Raises InputError where none could."""
    tools, rows, skipped = Tools.load(), [], {}
    network = SyncNet.load(syncnet) if syncnet else None
    for path, partner in pairs:
        try:
            film = look_at(path, tools)
            reference = look_at(partner, tools) if partner else None
        except InputError as error:
            skipped[path.name] = str(error)
            continue
        row = Row(film, figures_of(film, reference), reference, figures_of(reference, None) if reference else None)
        if network is not None:
            row.figures.update(lse_measures(network, film))
            row = replace(row, real=row.real and row.real | lse_measures(network, reference)) if reference else row
        rows.append(row)
    if not rows:
        raise InputError("No film could be measured. " + " ".join(skipped.values()))
    return rows, skipped


def figures_of(film: SeenFilm, reference: SeenFilm | None) -> Figures:
    chosen = [measure for measure in MEASURES if reference is not None or not measure.needs]
    return {measure.name: measure.of(film, reference) for measure in chosen}


def mean_of(rows: Iterable[Figures]) -> Figures:
    """Over the films that have the figure."""
    table = list(rows)
    values = {name: [row[name] for row in table if row.get(name) is not None] for name in table[0]}
    return {name: float(np.mean(found)) if found else None for name, found in values.items()}  # type: ignore[arg-type]


def table_of(rows: list[Row]) -> str:
    """One line a measure: the films' mean, and beside it that of the reference."""
    means, real = mean_of(row.figures for row in rows), mean_of(row.real or {} for row in rows)
    units = {measure.name: (measure.unit, measure.better) for measure in (*MEASURES, *LSE)}
    lines = [f"{'measure':16} {'films':>9} {'reference':>9}  unit, better", "-" * 60]
    for name, value in means.items():
        unit, better = units[name]
        lines.append(f"{name:16} {_told(value):>9} {_told(real.get(name)):>9}  {unit}, {better}")
    return "\n".join(lines)


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def tell_measures() -> str:
    """The table of measures, for people."""
    return "\n".join(
        f"{one.name} ({one.unit}; better: {one.better}{f'; needs {one.needs}' if one.needs else ''})\n"
        f"    {one.definition}\n    source: {one.source}"
        for one in (*MEASURES, *LSE)
    )


def write_report(rows: list[Row], skipped: dict[str, str], out: Path) -> str:
    """table.txt, figures.json and a picture of every film; gives the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = table_of(rows)
    told = {
        "films": {row.film.path.name: {"figures": row.figures, "reference": row.real} for row in rows},
        "mean": mean_of(row.figures for row in rows),
        "skipped": skipped,
    }
    write_atomically(out / "figures.json", lambda file: file.write(json.dumps(told, indent=1).encode()))
    write_atomically(out / "table.txt", lambda file: file.write(table.encode()))
    for row in rows:
        save_figure(draw(row), out / f"{row.film.path.stem}.png")
    return table


def draw(row: Row) -> Figure:
    """Frames, mouth, head and eyes over time, the reference in black."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9))
    axes = figure.subplots(4, 1)
    axes[0].imshow(np.hstack(row.film.pictures))
    axes[0].axis("off")
    axes[0].set_title(row.film.path.name)
    columns = {
        "mouth opening": lambda film: film.mouth,
        "yaw, pitch, roll in degrees": lambda film: film.pose,
        "eye opening": lambda film: film.eyes,
    }
    for axis, (name, curve) in zip(axes[1:], columns.items(), strict=True):
        if row.reference is not None:
            values = curve(row.reference)
            axis.plot(np.arange(len(values)) / FRAME_RATE_HZ, values, "k", linewidth=0.7, alpha=0.7)
        values = curve(row.film)
        axis.plot(np.arange(len(values)) / FRAME_RATE_HZ, values)
        axis.set(ylabel=name, xlabel="s")
    loud = axes[1].twinx()
    loud.plot(np.arange(len(row.film.loudness)) / FRAME_RATE_HZ, row.film.loudness, ":", color="grey", linewidth=0.7)
    loud.set_ylabel("log loudness")
    figure.tight_layout()
    return figure
