"""Draw an SVG chart of a film: voice, mouth, eyes and head on one time axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.protocols import Openings
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME

WIDTH, ROW, GAP, LEFT, RIGHT = 720, 64, 30, 56, 12  # sizes in SVG user units
COLOURS = ("#4f46e5", "#0f766e", "#b45309")
TICKS_S = (0.5, 1, 2, 5, 10, 20, 60)


def loudness(sound: Iterable[Array]) -> Array:
    """Compute the peak magnitude of each frame's samples (T,) from pieces of any size."""
    samples = np.abs(np.concatenate(list(sound)))
    padded = np.pad(samples, (0, -len(samples) % SAMPLES_PER_FRAME))
    largest: Array = padded.reshape(-1, SAMPLES_PER_FRAME).max(1)
    return largest


@dataclass(frozen=True)
class Panel:
    """Hold lines (T,) on one scale from low to high, each with its name where there are several."""

    title: str
    lines: tuple[Array, ...]
    low: float
    high: float
    names: tuple[str, ...] = ()
    unit: str = ""


def draw_chart(voice: Array, pose: Array, openings: Openings) -> str:
    """Draw the chart. voice (T,): loudness 0..1; pose (T, 3): yaw, pitch, roll in degrees; openings: 0 is closed."""
    turn = max(5.0, float(np.abs(pose).max()))
    panels = [Panel("Voice", (voice,), 0, max(float(voice.max()), 0.01))]
    for title, line in (("Mouth open", openings.lips), ("Eyes open", openings.eyes)):
        if line is not None:
            panels.append(Panel(title, (line,), 0, max(float(line.max()), 0.1)))
    panels.append(Panel("Head", tuple(pose.T), -turn, turn, ("yaw", "pitch", "roll"), "°"))
    height = len(panels) * (ROW + GAP) + 20
    drawing = "".join(_draw_panel(panel, number * (ROW + GAP) + 18) for number, panel in enumerate(panels))
    return (
        f'<svg role="img" aria-label="What happened over time: {", ".join(panel.title for panel in panels)}" '
        f'viewBox="0 0 {WIDTH} {height}" width="100%" font-size="12" fill="currentColor" '
        f'xmlns="http://www.w3.org/2000/svg">{drawing}{_draw_axis(len(voice), height)}</svg>'
    )


def _draw_panel(panel: Panel, top: int) -> str:
    legend = "".join(
        f' <tspan fill="{colour}">{name}</tspan>' for name, colour in zip(panel.names, COLOURS, strict=False)
    )
    parts = [f'<text x="{LEFT}" y="{top - 5}"><tspan font-weight="600">{panel.title}</tspan>{legend}</text>']
    for value, level in ((panel.low, top + ROW), (panel.high, top)):
        end = f"{value:.2g}{panel.unit}"
        parts.append(f'<text x="{LEFT - 6}" y="{level + 4}" text-anchor="end" opacity="0.8">{end}</text>')
    frame = f'x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{ROW}"'
    parts.append(f'<rect {frame} fill="none" stroke="currentColor" opacity="0.3"/>')
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        x = LEFT + (np.arange(len(line)) + 0.5) / len(line) * (WIDTH - LEFT - RIGHT)
        y = top + ROW * (panel.high - np.clip(line, panel.low, panel.high)) / (panel.high - panel.low)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in np.stack([x, y], -1).tolist())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(parts)


def _draw_axis(frames: int, height: int) -> str:
    length_s = frames / FRAME_RATE_HZ
    step_s = next((tick for tick in TICKS_S if length_s / tick <= 10), TICKS_S[-1])
    ticks = []
    for tick_s in np.arange(0, length_s + 1e-6, step_s):
        x = LEFT + tick_s / length_s * (WIDTH - LEFT - RIGHT)
        ticks.append(f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle">{tick_s:g} s</text>')
        ticks.append(f'<path d="M{x:.1f} 18V{height - 22}" stroke="currentColor" opacity="0.12"/>')
    return "".join(ticks)
