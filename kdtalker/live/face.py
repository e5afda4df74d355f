"""One portrait, loaded once, for any number of live sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdtalker.core.errors import InputError
from kdtalker.core.options import LONGEST_SIDE_PX
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import PictureState
from kdtalker.live.idle import IdleLoop
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.media.picture import read_image
from kdtalker.pipeline import TalkingPortraitPipeline


@dataclass(frozen=True)
class LiveFace:
    """Hold an encoded portrait and its idle life; sessions share them."""

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
        max_side: int = LONGEST_SIDE_PX,
    ) -> LiveFace:
        """Load a picture with a face and draw its first live frame, so that a session begins at once. Blocks for a few
        seconds, the first time on a machine for a minute: loops are compiled. pipeline: one that is loaded already;
        crop, max_side: as of `TalkingPortraitPipeline.portrait`.

        Raises InputError where there is no such file, or no face."""
        image = read_image(Path(portrait))
        pipeline = pipeline or TalkingPortraitPipeline.mesh()
        encoded = pipeline.portrait(image, crop=crop, max_side=max_side)
        options = options or LiveOptions()
        face = LiveFace(pipeline, encoded, options, IdleLoop(pipeline.engine, encoded, options.options))
        face._draw_first()
        return face

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the frames in px."""
        height, width = self.portrait.canvas.paste(self.portrait.canvas.face).shape[:2]
        return width, height

    def start(self, sample_rate: int) -> LiveSession:
        """Start a session whose sound has this rate in Hz. Raises InputError for a rate that sessions do not have."""
        return LiveSession(self.pipeline, self.portrait, replace(self.options, sample_rate=sample_rate), idle=self.idle)

    def _draw_first(self) -> None:
        with self.start(self.options.sample_rate) as session:
            while session.take().picture_state is PictureState.REPEATED:
                if session.error is not None:
                    raise InputError(f"The portrait cannot be drawn: {session.error}") from session.error
                time.sleep(1 / FRAME_RATE_HZ)
