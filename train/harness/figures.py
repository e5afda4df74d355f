"""Plot training curves; save matplotlib figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

Figure: TypeAlias = "MatplotlibFigure"
Metrics = dict[str, float]  # by the name of the metric


def plot_curves(rows: list[Metrics]) -> Figure:
    """Plot the training loss and the metrics of the validation split over steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    axes = figure.subplots(1, 2)
    steps = [row["step"] for row in rows]
    axes[0].plot(steps, [row["loss"] for row in rows])
    axes[0].set(title="training loss", xlabel="step")
    for name in sorted(set(rows[-1]) - {"step", "loss", "lag"}):
        axes[1].plot(steps, [row[name] for row in rows], label=name)
    axes[1].set(title="people held out", xlabel="step")
    if axes[1].lines:
        axes[1].legend(fontsize=7)
    return figure


def save_figure(figure: Figure, path: Path) -> NDArray[np.uint8]:
    """Write a figure as .png and return its pixels (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    write_atomically(path, canvas.print_png)
    pixels = np.asarray(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()
