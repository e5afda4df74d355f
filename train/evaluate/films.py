"""Compute the metrics of finished videos, of any system: `python -m train.evaluate films`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import nn

from kdtalker.core.errors import InputError
from kdtalker.core.files import is_folder, write_atomically
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.media.video import read_video
from kdtalker.weights.find import find, find_missing
from kdtalker.weights.spec import fetch_command
from kdtalker.weights.table import ARCFACE, INCEPTION, SYNCNET, find_row
from train.data.films import SUFFIXES
from train.evaluate.identity import ArcFace
from train.evaluate.inception import InceptionV3, embed_video, frechet_distance
from train.evaluate.metrics import METRICS, MetricSpec
from train.evaluate.syncnet import LSE, SyncNet, lse_metrics
from train.evaluate.tracked import TrackedVideo, TrackingNetworks, track_video
from train.harness.figures import Figure, save_figure

VideoMetrics = dict[str, float | None]
NetworkT = TypeVar("NetworkT")
CSIM = MetricSpec(
    "CSIM", "-1..1", "higher",
    "mean cosine of ArcFace's embeddings of every frame and of the first, the reference's where there is one",
    "ArcFace, arXiv 1801.07698; CSIM, arXiv 1905.08233; unverified", needs=ARCFACE,
)  # fmt: skip
FID = MetricSpec(
    "FID", "distance", "lower", "Fréchet distance of Inception's features of all frames of all films and references",
    "Heusel et al., arXiv 1706.08500 eq. 6", needs=f"references and {INCEPTION}",
)  # fmt: skip
NETWORK_METRICS = (*LSE, CSIM, FID)


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


@dataclass(frozen=True)
class PublishedNetworks:
    """Hold the networks of published measures, None where the file is not on the search path of weights."""

    syncnet: SyncNet | None
    arcface: ArcFace | None
    inception: InceptionV3 | None

    @staticmethod
    def load(folder: Path | None) -> PublishedNetworks:
        """Load those that are found, in the folder first. Raises InputError where there is no such folder."""
        if folder is not None and not is_folder(folder):
            raise InputError(f"There is no folder '{folder}'.")

        return PublishedNetworks(
            _load_found(SYNCNET, SyncNet.load, folder),
            _load_found(ARCFACE, ArcFace, folder),
            _load_found(INCEPTION, InceptionV3.load, folder),
        )

    def describe_missing(self, folder: Path | None) -> list[str]:
        """Describe in a sentence each network that is missing, what it would measure, and how to fetch it."""
        networks = {SYNCNET: self.syncnet, ARCFACE: self.arcface, INCEPTION: self.inception}
        names = [name for name, network in networks.items() if network is None]
        rows = {name: [one.name for one in NETWORK_METRICS if name in one.needs] for name in names}
        return [
            f"{' and '.join(left_out)} left out: `{fetch_command([find_row(name)], folder)}` fetches the network."
            for name, left_out in rows.items()
        ]

    def compute(self, film: TrackedVideo, reference: TrackedVideo | None) -> VideoMetrics:
        """Compute the metrics of one video that the networks allow."""
        figures = lse_metrics(self.syncnet, film) if self.syncnet else {}
        return figures | {CSIM.name: csim(self.arcface, film, reference)} if self.arcface else figures


def _load_found(name: str, load: Callable[[Path], NetworkT], folder: Path | None) -> NetworkT | None:
    """Load a network; None where its file is not on the search path."""
    return None if find_missing([name], folder) else load(find(name, folder))


@dataclass(frozen=True)
class FilmSet:
    """Hold measured videos, the reason for each that failed, and the FID of the whole set where it was computed."""

    rows: list[MeasuredVideo]
    skipped: dict[str, str]
    fid: float | None = None

    def mean(self) -> VideoMetrics:
        """Average the metrics over the videos; FID is that of the set."""
        return mean_metrics(row.figures for row in self.rows) | ({} if self.fid is None else {FID.name: self.fid})


def measure_films(pairs: list[tuple[Path, Path | None]], published: PublishedNetworks) -> FilmSet:
    """Compute the metrics of all videos. Raises InputError where all failed."""
    networks, rows, skipped = TrackingNetworks.load(), [], {}
    for path, partner in pairs:
        try:
            film = track_video(path, networks)
            reference = track_video(partner, networks) if partner else None
        except InputError as error:
            skipped[path.name] = str(error)
            continue
        figures = compute_metrics(film, reference) | published.compute(film, reference)
        real = compute_metrics(reference, None) | published.compute(reference, None) if reference else None
        rows.append(MeasuredVideo(film, figures, reference, real))
    if not rows:
        raise InputError("No film could be measured. " + " ".join(skipped.values()))
    return FilmSet(rows, skipped, fid(published.inception, rows) if published.inception else None)


def csim(network: ArcFace, film: TrackedVideo, reference: TrackedVideo | None) -> float:
    """Compute the mean cosine similarity (CSIM) of every frame with the first, the reference's where there is one."""
    source = reference or film
    known = network.embed(next(read_video(source.path)), source.landmarks[0])
    frames = zip(read_video(film.path), film.landmarks, strict=False)
    return float(np.mean([network.embed(frame, landmarks) @ known for frame, landmarks in frames]))


def fid(network: nn.Module, rows: list[MeasuredVideo]) -> float | None:
    """Compute the FID of all frames of videos to those of their references; None where there are no references."""
    references = [row.reference for row in rows if row.reference is not None]
    if not references:
        return None
    films = [embed_video(network, read_video(row.film.path)) for row in rows]
    return frechet_distance(
        np.concatenate(films), np.concatenate([embed_video(network, read_video(one.path)) for one in references])
    )


def compute_metrics(film: TrackedVideo, reference: TrackedVideo | None) -> VideoMetrics:
    """Compute all metrics by name; without a reference those that need none."""
    chosen = [metric for metric in METRICS if reference is not None or not metric.needs]
    return {metric.name: metric.compute(film, reference) for metric in chosen}


def mean_metrics(rows: Iterable[VideoMetrics]) -> VideoMetrics:
    """Average each metric over the videos that have it."""
    table = list(rows)
    values = {name: [value for row in table if (value := row.get(name)) is not None] for name in table[0]}
    return {name: float(np.mean(found)) if found else None for name, found in values.items()}


def format_table(measured: FilmSet) -> str:
    """Format one line a metric: the mean over videos, and that over references."""
    means, real = measured.mean(), mean_metrics(row.real or {} for row in measured.rows)
    units = {metric.name: (metric.unit, metric.better) for metric in (*METRICS, *NETWORK_METRICS)}
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
        for one in (*METRICS, *NETWORK_METRICS)
    )


def write_report(measured: FilmSet, out: Path) -> str:
    """Write table.txt, figures.json and a plot of every video; return the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = format_table(measured)
    report = {
        "films": {row.film.path.name: {"figures": row.figures, "reference": row.real} for row in measured.rows},
        "mean": measured.mean(),
        "skipped": measured.skipped,
    }
    write_atomically(out / "figures.json", lambda file: file.write(json.dumps(report, indent=1).encode()))
    write_atomically(out / "table.txt", lambda file: file.write(table.encode()))
    for row in measured.rows:
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
