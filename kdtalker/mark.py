"""What tells a made film from a recorded one at a glance: a word in its corner."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from kdtalker.renderer import Image

WORD = "generated"

_HEIGHT = 1 / 22  # of the picture's shorter side
_LEAST_HEIGHT_PX = 10
_OPACITY = 0.8


class Mark:
    """The word in the lower left corner of frames (height, width, 3): white on a dark rim, readable on any ground."""

    def __init__(self, height: int, width: int) -> None:
        size_px = max(_LEAST_HEIGHT_PX, round(min(height, width) * _HEIGHT))
        font, rim_px = ImageFont.load_default(size_px), max(1, size_px // 10)
        drawn = Pillow.new("LA", (width, height))  # white or black, and how much of it
        place = size_px // 2, height - size_px // 2
        ImageDraw.Draw(drawn).text(
            place, WORD, (255, 255), font, anchor="ls", stroke_width=rim_px, stroke_fill=(0, 255)
        )
        left, top, right, bottom = drawn.getchannel("A").getbbox() or (0, 0, 0, 0)
        self._area = np.s_[top:bottom, left:right]
        self._colour, alpha = np.moveaxis(np.asarray(drawn, np.float64)[self._area], -1, 0)[..., None]
        self._alpha = alpha / 255 * _OPACITY

    def on(self, frame: Image) -> Image:
        """A copy of the frame that bears the mark."""
        marked = frame.copy()
        ground = frame[self._area]
        marked[self._area] = np.rint(ground + self._alpha * (self._colour - ground)).astype(np.uint8)
        return marked
