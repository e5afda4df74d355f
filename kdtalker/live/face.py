"""One portrait, loaded once, for any number of live sessions."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.core.options import LONGEST_SIDE_PX
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.face.portrait import scale_down
from kdtalker.live.frames import PictureState
from kdtalker.live.idle import IdleLoop
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.media.picture import read_image
from kdtalker.pipeline import TalkingPortraitPipeline

LIVE_SIDE_PX = 512  # default limit of a live picture's longer side

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveFace:
    """Hold an encoded portrait and its idle motion; sessions share them."""

    pipeline: TalkingPortraitPipeline[Any]
    portrait: EncodedPortrait[Any]
    options: LiveOptions
    idle: IdleLoop = field(repr=False)

    @staticmethod
    def load(
        portrait: Path | str,
        options: LiveOptions | None = None,
        *,
        pipeline: TalkingPortraitPipeline[Any] | None = None,
        crop: bool = False,
        max_side: int = LIVE_SIDE_PX,
    ) -> LiveFace:
        """Load a picture with a face and draw its first live frame, so that a session begins at once. Blocks for a few
        seconds, the first time on a machine for a minute: loops are compiled. pipeline: one that is loaded already;
        crop, max_side: as of `encode`.

        Raises InputError where there is no such file, or no face."""
        image = read_image(Path(portrait))
        face = LiveFace.encode(pipeline or TalkingPortraitPipeline.mesh(), image, options, crop=crop, max_side=max_side)
        face.draw_first()
        return face

    @staticmethod
    def encode(
        pipeline: TalkingPortraitPipeline[Any],
        image: Image,
        options: LiveOptions | None = None,
        *,
        crop: bool = False,
        max_side: int = LIVE_SIDE_PX,
    ) -> LiveFace:
        """Encode the largest face of a picture (H, W, 3). crop: frames are the face's square alone, 512 x 512 px; else
        the picture is scaled down to max_side px of its longer side, and made even. Raises InputError where there is no
        face."""
        if not crop:
            image = _fit(image, max_side)
        portrait = pipeline.portrait(image, crop=crop, max_side=LONGEST_SIDE_PX if crop else max_side)
        options = options or LiveOptions()
        return LiveFace(pipeline, portrait, options, IdleLoop(pipeline.engine, portrait, options.options))

    def with_options(self, options: LiveOptions) -> LiveFace:
        """Return the same face with other options; it has an idle motion of its own where those of films differ."""
        is_same = options.options == self.options.options
        idle = self.idle if is_same else IdleLoop(self.pipeline.engine, self.portrait, options.options)
        return replace(self, options=options, idle=idle)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the frames in px."""
        height, width = self.portrait.canvas.paste(self.portrait.canvas.face).shape[:2]
        return width, height

    def start(self, sample_rate: int) -> LiveSession:
        """Start a session whose sound has this rate in Hz. Raises InputError for a rate that sessions do not have."""
        return LiveSession(self.pipeline, self.portrait, replace(self.options, sample_rate=sample_rate), idle=self.idle)

    def draw_first(self) -> None:
        """Draw the first frame in a session. Raises InputError where that fails."""
        with self.start(self.options.sample_rate) as session:
            while session.take().picture_state is PictureState.REPEATED:
                if session.error is not None:
                    raise InputError(f"The portrait cannot be drawn: {session.error}") from session.error
                time.sleep(1 / FRAME_RATE_HZ)


def _fit(image: Image, max_side: int) -> Image:
    """Scale a picture (H, W, 3) down to max_side px, which is logged, and leave out the last row or column of an odd
    side: H.264 and VP8 (4:2:0) have none, and so all who are sent pictures get the same size."""
    small, shrink = scale_down(image, max_side)
    height, width = (side - side % 2 for side in small.shape[:2])
    if shrink < 1:
        sizes = *image.shape[1::-1], width, height
        _log.info("The portrait of %d x %d px was scaled down to %d x %d px, the size of live pictures.", *sizes)
    return np.ascontiguousarray(small[:height, :width])
