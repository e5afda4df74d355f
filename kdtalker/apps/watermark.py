"""Draw on pictures: the watermark of generated films, and squares around faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from kdtalker.core.arrays import Image

WORD = "generated"

_HEIGHT = 1 / 22  # height of the word, relative to the shorter side of the picture
_LEAST_HEIGHT_PX = 10
_OPACITY = 0.8
_SHOWN_PX = 640
_FRAME = (255, 200, 0)


class Watermark:
    """Stamp the word "generated" into the lower left corner of frames (height, width, 3): white with a dark rim."""

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
        """Return a copy of the frame with the watermark."""
        marked = frame.copy()
        ground = frame[self._area]
        marked[self._area] = np.rint(ground + self._alpha * (self._colour - ground)).astype(np.uint8)
        return marked


def preview_scale(picture: Image) -> float:
    """Return the factor (0..1] by which `draw_squares` scales a picture."""
    return min(1.0, _SHOWN_PX / float(max(picture.shape[:2])))


def draw_squares(picture: Image, squares: Sequence[tuple[int, int, int]]) -> Image:
    """Draw squares (left, top, side in px) onto a small copy of a picture (H, W, 3), numbered if several."""
    scale = preview_scale(picture)
    shown = Pillow.fromarray(picture)
    shown = shown.resize((max(1, round(shown.width * scale)), max(1, round(shown.height * scale))))
    pen, font = ImageDraw.Draw(shown), ImageFont.load_default(22)
    for number, (left, top, side) in enumerate(squares, 1):
        corner = max(1, left * scale), max(1, top * scale)
        opposite = min(shown.width - 2, (left + side) * scale), min(shown.height - 2, (top + side) * scale)
        pen.rectangle((*corner, *opposite), outline=_FRAME, width=3)
        if len(squares) > 1:
            pen.text((corner[0] + 8, corner[1] + 4), str(number), _FRAME, font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(shown)
