"""The pipeline over one engine: a portrait and a sound or a driving video to frames.

    samples -> audio encoder -> motion model -> edits -> renderer -> paste -> frames

Models are read-only and shared; all that belongs to one film lives in its Session.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import FRAMINGS, Motion
from kdtalker.core.options import LONGEST_SIDE_PX, Options
from kdtalker.core.protocols import Box, Edit, EncodedPortrait, Engine, Record, SourceT
from kdtalker.edits.perform import apply_options, check_options
from kdtalker.edits.transfer import transfer_stream
from kdtalker.motion_stream import MotionStream
from kdtalker.session import Session, draw_frames

if TYPE_CHECKING:
    from kdtalker.renderers.liveportrait.renderer import LivePortraitSource
    from kdtalker.renderers.mesh.source import MeshSource


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TalkingPortraitPipeline(Generic[SourceT]):
    """Animate portraits with one engine; encode a portrait once, make any number of films of it."""

    engine: Engine[SourceT]

    @staticmethod
    def mesh(checkpoint: Path | None = None, personal: float | None = None) -> TalkingPortraitPipeline[MeshSource]:
        """Load the engine that ships with the package; checkpoint: a motion model of one's own, written by
        `python -m train.export` or `python -m train.personal`; personal: how much like the person of the latter, from 0
        (like everybody) to 1, which None means.

        Raises InputError where weights are missing or damaged, and for a dial that the checkpoint does not have.
        """
        from kdtalker.renderers.mesh.engine import MeshEngine

        return TalkingPortraitPipeline(MeshEngine.load(checkpoint, personal))

    @staticmethod
    def liveportrait(
        device: str = "auto",
        precision: str = "auto",
        weights: Path | None = None,
        checkpoint: Path | None = None,
        compiled: bool = False,
    ) -> TalkingPortraitPipeline[LivePortraitSource]:
        """Load the published networks of KDTalker and LivePortrait from files that were fetched before. weights: a
        folder that is searched first; checkpoint: a motion model of one's own in place of KDTalker's; compiled: use
        torch.compile (experimental).

        Raises InputError where a file is missing or damaged, or the device is not there.
        """
        from kdtalker.renderers.liveportrait.engine import LivePortraitEngine

        return TalkingPortraitPipeline(LivePortraitEngine.load(device, precision, weights, checkpoint, compiled))

    def portrait(
        self,
        image: Image,
        *,
        face: int | None = None,
        box: Box | None = None,
        crop: bool = False,
        alpha: bool = False,
        max_side: int = LONGEST_SIDE_PX,
        framing: str = FRAMINGS[0],
    ) -> EncodedPortrait[SourceT]:
        """Find and encode the face in an (H, W, 3) RGB image: the largest, number `face` by size from 0, or the one
        in `box` (left, top, width, height in px). crop: frames are the face's square alone. alpha: frames are
        (H, W, 4), the person alone with straight alpha. max_side: px of the longer side, to which larger pictures are
        scaled down. framing: "speech" for sound, "driving" for a driving video or
        template; the published engine crops the face differently for the two.

        Raises InputError where there is no such face, and for another framing.
        """
        if framing not in FRAMINGS:
            raise InputError(f"The framing '{framing}' was asked for, known are {' and '.join(FRAMINGS)}.")
        renderer = self.engine.renderer
        canvas = self.engine.find_portrait(image, face=face, box=box, crop=crop, max_side=max_side, framing=framing)
        source = renderer.encode_source(canvas.face)
        if not alpha:
            return EncodedPortrait(canvas, source, framing)
        from kdtalker.face.background import isolate

        foreground, matte = isolate(canvas.picture)
        levels = np.repeat(np.rint(255 * matte).astype(np.uint8)[..., None], 3, axis=2)
        alone = canvas.on(foreground)
        return EncodedPortrait(alone, renderer.isolate(source, alone.face), framing, canvas.on(levels))

    def start(
        self,
        portrait: EncodedPortrait[SourceT],
        options: Options | None = None,
        record: Record | None = None,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> Session[SourceT]:
        """Start a session that takes sound piece by piece. record: called with each piece of motion as it is drawn;
        edit: has the last word on the motion; head: driving motion whose head the portrait takes, forward and backward
        in turn. Raises InputError for options that the engine does not have."""
        options = options or Options()
        renderer = self.engine.renderer
        check_options(options, renderer.expression_model)
        if renderer.expression_model.basis is None:
            _log.warning(
                "The engine '%s' draws lips as its motion model makes them; it cannot close them in silence.",
                renderer.space,
            )
        return Session(self.engine, portrait, options, record=record, edit=edit, head=head)

    def start_motion(
        self,
        portrait: EncodedPortrait[SourceT],
        options: Options | None = None,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> MotionStream[SourceT]:
        """Start a stream of the motion that a session would draw; arguments and errors as of `start`."""
        options = options or Options()
        check_options(options, self.engine.renderer.expression_model)
        return MotionStream(self.engine, portrait, options, edit=edit, head=head)

    def animate(
        self,
        portrait: EncodedPortrait[SourceT],
        sound: Iterable[Array],
        options: Options | None = None,
        record: Record | None = None,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> Iterator[Image]:
        """Yield the frames (H, W, 3) of a whole sound, which comes in pieces of any size, mono at 16 kHz. Reads a
        piece ahead; for sound that is being recorded use `start` and `push`."""
        yield from self.start(portrait, options, record, edit=edit, head=head).follow(sound)

    def reenact(
        self,
        portrait: EncodedPortrait[SourceT],
        driving: Iterable[Motion],
        options: Options | None = None,
        record: Record | None = None,
        edit: Edit | None = None,
    ) -> Iterator[Image]:
        """Yield the frames of a portrait that follows driving motion, relative to its first frame or absolutely."""
        frame, options, renderer = 0, options or Options(), self.engine.renderer
        check_options(options, renderer.expression_model)
        for motion in transfer_stream(self.engine, driving, portrait.rest, absolute=options.absolute):
            drawn = apply_options(motion, portrait.source, renderer.expression_model, options, frame=frame)
            drawn = edit(drawn, frame) if edit else drawn
            yield from draw_frames(renderer, portrait, drawn, record)
            frame += len(motion)
