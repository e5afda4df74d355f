"""Costs of pictures, and the choice of what there is time for."""

from __future__ import annotations

import math

from kdtalker.core.rates import FRAME_RATE_HZ

FRAME_S = 1 / FRAME_RATE_HZ
SUSTAINABLE_S = 0.9 * FRAME_S  # a cost that allows to draw every picture
FORGET = 0.99  # by which the cost of the mouth painter is thought to fall with each picture without it
FALL, RISE = 1 / 8, 1 / 2  # weights of a new cost in its mean


class DrawingCosts:
    """Estimate the cost in s of a picture with the mouth painter and without it. Once there was no time for the painter
    it is left out until every picture could be drawn with it, so that the mouth does not flicker."""

    def __init__(self) -> None:
        self._painted_s = self._fast_s = 0.0
        self._is_painting = True
        self._is_warm = False  # the first picture costs more

    def add(self, cost_s: float, is_painted: bool) -> None:
        """Add what a picture cost."""
        if not self._is_warm:
            self._is_warm = True
        elif is_painted:
            self._painted_s = _follow(self._painted_s, cost_s)
        else:
            self._fast_s = _follow(self._fast_s, cost_s)
            self._painted_s = max(self._fast_s, FORGET * self._painted_s)

    def find_time(self, left_s: float) -> tuple[bool, int]:
        """Find out what there is time for where a picture is due in `left_s`: the mouth painter or not, and how many
        pictures are too late to be drawn at all."""
        has_time = left_s >= self._painted_s
        self._is_painting = has_time and (self._is_painting or self._painted_s <= SUSTAINABLE_S)
        if self._is_painting or math.isinf(left_s):
            return self._is_painting, 0
        return False, _late(self._fast_s or self._painted_s, left_s)

    def late_pictures(self, left_s: float) -> int:
        """Count the pictures, the first due in `left_s`, that are too late to be drawn with the mouth painter."""
        return 0 if math.isinf(left_s) else _late(self._painted_s, left_s)


def _late(cost_s: float, left_s: float) -> int:
    return max(0, math.ceil((cost_s - left_s) / FRAME_S))


def _follow(mean_s: float, cost_s: float) -> float:
    """Move a running mean to a new cost; it rises faster than it falls."""
    return mean_s + (cost_s - mean_s) * ((RISE if cost_s > mean_s else FALL) if mean_s else 1)
