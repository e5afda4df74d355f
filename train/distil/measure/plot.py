"""Compare measured rows: a table beside the teacher's, and a figure of quality against delay and cost:
`python -m train.distil figure DIR [--out FILE.png]`, DIR a folder that `measure` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.core.errors import InputError
from kdtalker.core.options import WHOLE_WINDOWS
from train.distil.figures import bootstrap_interval
from train.distil.measure.rows import ResultRow
from train.harness.figures import Figure, save_figure

QUALITIES = {"r": "mouth r, one seed", "closures met": "closures met, %"}
COSTS = {"delay ms": "delay beyond a frame's own sound, ms", "ms a frame": "processor ms a frame, hearing and motion"}
TEACHER = "teacher"
DPI = 90


def load_rows(folder: Path) -> list[ResultRow]:
    """Load the rows of a folder, those of the teacher first. Raises InputError where there are none."""
    rows = [ResultRow.load(path) for path in sorted(folder.glob("*.json"))]
    if not rows:
        raise InputError(f"'{folder}' holds no rows; measure some with `python -m train.distil measure`.")
    return sorted(rows, key=lambda row: (not is_teacher(row), row.cost["delay ms"], row.name))


def is_teacher(row: ResultRow) -> bool:
    """Tell whether a row is the teacher's."""
    return row.name.startswith(f"{TEACHER}, ")


def share_of(row: ResultRow, other: ResultRow, figure: str) -> str:
    """Format a figure's share of another row's with its 95 % interval by the bootstrap over clips that both have."""
    clips = [clip for clip in row.clips if figure in row.clips[clip] and figure in other.clips.get(clip, {})]
    pairs = np.array([[one.clips[clip][figure] for clip in clips] for one in (row, other)])
    if not pairs.size or pairs[1].mean() == 0:
        return "–"
    low, high = bootstrap_interval(pairs[0] - pairs[1])
    mean = pairs[1].mean()
    return f"{pairs[0].mean() / mean:.3f} ({1 + low / mean:.3f} … {1 + high / mean:.3f})"


def format_rows(rows: list[ResultRow]) -> str:
    """Format rows as a table in Markdown; of the others also their share of the teacher's r and closures, in whole
    windows and at the most look-ahead whose delay is no longer than theirs."""
    head = ["", "delay, ms", "ms a frame, p95", "r", "r, mean of seeds", "amplitude", "closures met", "M-LMD",
            "yaw, pitch, roll", "r of whole windows'", "r at this delay", "closures at this delay"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    whole = next((row for row in rows if is_teacher(row) and row.settings["lookahead"] == WHOLE_WINDOWS), None)
    for row in rows:
        means, cost = row.means, row.cost
        cells = [row.name, f"{cost['delay ms']:.0f}", f"{cost['ms a frame']:.1f}, {cost['ms p95']:.1f}",
                 *(f"{means[name]:.3f}" for name in ("r", "r mean")), f"{means['amplitude']:.2f}",
                 f"{means.get('closures met', np.nan):.0f} %", f"{means['M-LMD']:.2f} %",
                 ", ".join(f"{means[name]:.2f}" for name in ("yaw", "pitch", "roll"))]  # fmt: skip
        beside = None if is_teacher(row) else _teacher_at(rows, cost["delay ms"])
        for other, figure in ((whole, "r"), (beside, "r"), (beside, "closures met")):
            cells.append("" if other is None or other is row else share_of(row, other, figure))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _teacher_at(rows: list[ResultRow], delay_ms: float) -> ResultRow | None:
    sliding = [row for row in rows if is_teacher(row) and row.settings["lookahead"] != WHOLE_WINDOWS]
    fitting = [row for row in sliding if row.cost["delay ms"] <= delay_ms]
    return max(fitting, key=lambda row: row.cost["delay ms"], default=None)


def plot_rows(rows: list[ResultRow]) -> Figure:
    """Plot r and closures met against delay and against processor time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), dpi=DPI)
    axes = figure.subplots(len(QUALITIES), len(COSTS), sharey="row")
    for line, (quality, unit) in zip(axes, QUALITIES.items(), strict=True):
        line[0].set_ylabel(unit)
        for axis, (cost, label) in zip(line, COSTS.items(), strict=True):
            values = sorted({float(f"{row.cost[cost]:.2g}") for row in rows})
            axis.set(xscale="log", xlabel=label)
            axis.set_xticks(values, [f"{value:g}" for value in values], rotation=60, fontsize=8)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            for name, marker in (("teacher", "o"), ("students", "s")):
                chosen = [row for row in rows if is_teacher(row) == (name == "teacher") and quality in row.means]
                if chosen:
                    _plot_points(axis, chosen, cost, quality, {"fmt": marker, "label": name})
    axes[0][0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    return figure


def _plot_points(axis: Any, rows: list[ResultRow], cost: str, quality: str, style: dict[str, str]) -> None:
    """Plot rows as points with names; bars are 95 % intervals over clips."""
    x, y = [row.cost[cost] for row in rows], [row.means[quality] for row in rows]
    clips = [np.array([one[quality] for one in row.clips.values() if quality in one]) for row in rows]
    ends = np.array([bootstrap_interval(values) for values in clips])
    axis.errorbar(x, y, np.abs(ends.T - y), capsize=3, alpha=0.8, **style)
    for row, at, height in zip(rows, x, y, strict=True):
        name, offset = row.name.removeprefix(f"{TEACHER}, "), (4, -12) if is_teacher(row) else (4, 6)
        axis.annotate(name, (at, height), offset, fontsize=7, textcoords="offset points")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("rows", type=Path, help="folder that `measure` wrote")
    parser.add_argument("--out", type=Path, help="PNG file to write")


def run(options: argparse.Namespace) -> None:
    """Print the table; write the figure."""
    rows = load_rows(options.rows)
    print(format_rows(rows), end="")
    if options.out:
        save_figure(plot_rows(rows), options.out)
