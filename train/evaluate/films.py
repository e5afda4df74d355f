"""Compute the metrics of finished videos, of any system: `python -m train.evaluate films`."""

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
from train.evaluate.metrics import METRICS
from train.evaluate.syncnet import LSE, SyncNet, lse_metrics
from train.evaluate.tracked import TrackedVideo, TrackingNetworks, track_video
from train.harness.figures import Figure, save_figure

VideoMetrics = dict[str, float | None]


@dataclass(frozen=True)
class MeasuredVideo:
    """Hold a video with its metrics and, where there is one, its reference with its own."""

    film: TrackedVideo
    figures: VideoMetrics
    reference: TrackedVideo | None = None
    real: VideoMetrics | None = None


def pair_with_references(films: Path, reference: Path | None) -> list[tuple[Path, Path | None]]:
    """Pair videos, a file or those of a folder, with the references of the same names.

    Raises InputError where there are no videos or one has no reference."""
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


def measure_films(
    pairs: list[tuple[Path, Path | None]], syncnet: Path | None
) -> tuple[list[MeasuredVideo], dict[str, str]]:
    """Compute the metrics of all videos, and the reason for each that failed. Raises InputError where all failed."""
    networks, rows, skipped = TrackingNetworks.load(), [], {}
    lse_network = SyncNet.load(syncnet) if syncnet else None
    for path, partner in pairs:
        try:
            film = track_video(path, networks)
            reference = track_video(partner, networks) if partner else None
        except InputError as error:
            skipped[path.name] = str(error)
            continue
        row = MeasuredVideo(
            film, compute_metrics(film, reference), reference, compute_metrics(reference, None) if reference else None
        )
        if lse_network is not None:
            row.figures.update(lse_metrics(lse_network, film))
            row = replace(row, real=row.real and row.real | lse_metrics(lse_network, reference)) if reference else row
        rows.append(row)
    if not rows:
        raise InputError("No film could be measured. " + " ".join(skipped.values()))
    return rows, skipped


def compute_metrics(film: TrackedVideo, reference: TrackedVideo | None) -> VideoMetrics:
    """Compute all metrics by name; without a reference those that need none."""
    chosen = [metric for metric in METRICS if reference is not None or not metric.needs]
    return {metric.name: metric.compute(film, reference) for metric in chosen}


def mean_metrics(rows: Iterable[VideoMetrics]) -> VideoMetrics:
    """Average each metric over the videos that have it."""
    table = list(rows)
    values = {name: [value for row in table if (value := row.get(name)) is not None] for name in table[0]}
    return {name: float(np.mean(found)) if found else None for name, found in values.items()}


def format_table(rows: list[MeasuredVideo]) -> str:
    """Format one line a metric: the mean over videos, and that over references."""
    means, real = mean_metrics(row.figures for row in rows), mean_metrics(row.real or {} for row in rows)
    units = {metric.name: (metric.unit, metric.better) for metric in (*METRICS, *LSE)}
    lines = [f"{'measure':16} {'films':>9} {'reference':>9}  unit, better", "-" * 60]
    for name, value in means.items():
        unit, better = units[name]
        lines.append(f"{name:16} {_format(value):>9} {_format(real.get(name)):>9}  {unit}, {better}")
    return "\n".join(lines)


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def describe_metrics() -> str:
    """Format all metrics with definition, source, unit and direction."""
    return "\n".join(
        f"{one.name} ({one.unit}; better: {one.better}{f'; needs {one.needs}' if one.needs else ''})\n"
        f"    {one.definition}\n    source: {one.source}"
        for one in (*METRICS, *LSE)
    )


def write_report(rows: list[MeasuredVideo], skipped: dict[str, str], out: Path) -> str:
    """Write table.txt, figures.json and a plot of every video; return the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = format_table(rows)
    report = {
        "films": {row.film.path.name: {"figures": row.figures, "reference": row.real} for row in rows},
        "mean": mean_metrics(row.figures for row in rows),
        "skipped": skipped,
    }
    write_atomically(out / "figures.json", lambda file: file.write(json.dumps(report, indent=1).encode()))
    write_atomically(out / "table.txt", lambda file: file.write(table.encode()))
    for row in rows:
        save_figure(plot_video(row), out / f"{row.film.path.stem}.png")
    return table


def plot_video(row: MeasuredVideo) -> Figure:
    """Plot frames, mouth opening, head pose and eye opening over time, the reference in black."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9))
    axes = figure.subplots(4, 1)
    axes[0].imshow(np.hstack(row.film.pictures))
    axes[0].axis("off")
    axes[0].set_title(row.film.path.name)
    curves = {"mouth": "mouth opening", "pose": "yaw, pitch, roll in degrees", "eyes": "eye opening"}
    for axis, (curve, name) in zip(axes[1:], curves.items(), strict=True):
        if row.reference is not None:
            values = getattr(row.reference, curve)
            axis.plot(np.arange(len(values)) / FRAME_RATE_HZ, values, "k", linewidth=0.7, alpha=0.7)
        values = getattr(row.film, curve)
        axis.plot(np.arange(len(values)) / FRAME_RATE_HZ, values)
        axis.set(ylabel=name, xlabel="s")
    loud = axes[1].twinx()
    loud.plot(np.arange(len(row.film.loudness)) / FRAME_RATE_HZ, row.film.loudness, ":", color="grey", linewidth=0.7)
    loud.set_ylabel("log loudness")
    figure.tight_layout()
    return figure
