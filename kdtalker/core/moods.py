"""Moods for --emotion: presets of blendshape amounts, head pitch and strengths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mood:
    """Hold amounts that are added to those of the Options: smile and brow -1..1, frown 0..1, lids (1 is shut, below
    0 is wide open), pitch_deg (down). The strengths expression and head multiply."""

    smile: float = 0.0
    brow: float = 0.0
    frown: float = 0.0
    lids: float = 0.0
    pitch_deg: float = 0.0
    expression: float = 1.0
    head: float = 1.0


MOODS = {
    "neutral": Mood(),
    "happy": Mood(smile=0.75, brow=0.2, lids=0.08, pitch_deg=-1.5, expression=1.05, head=1.15),
    "sad": Mood(smile=-0.6, brow=0.1, frown=-0.5, lids=0.15, pitch_deg=3, expression=0.9, head=0.7),
    "angry": Mood(smile=-0.35, brow=-0.5, frown=0.8, lids=0.06, pitch_deg=2, expression=1.15, head=1.15),
    "surprised": Mood(smile=0.1, brow=0.95, lids=-0.18, pitch_deg=-2, expression=1.1, head=1.1),
}
