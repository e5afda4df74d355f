"""From a portrait and a sound to frames: everything on one screen.

    samples ─► audio encoder ─► motion model ─► edits ─► renderer ─► paste ─► frames

Models are read-only and shared; all that belongs to one film lives in its Session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kdtalker.acting import check, edited
from kdtalker.audio import SAMPLES_PER_FRAME
from kdtalker.edits import as_made, relative_to, start_from
from kdtalker.errors import InputError
from kdtalker.motion import FRAMINGS, Array, Motion
from kdtalker.options import Options
from kdtalker.renderer import Image, Renderer, Source
from kdtalker.session import Session

if TYPE_CHECKING:
    from kdtalker.audio_encoder import AudioEncoder
    from kdtalker.liveportrait.openings import Openings

Square = tuple[int, int, int]


class Canvas(Protocol):
    """A picture (H, W, 3) with the square around its face cut out: `face` (S, S, 3)."""

    @property
    def picture(self) -> Image: ...

    @property
    def face(self) -> Image: ...

    def paste(self, face: Image) -> Image:
        """The whole picture (H, W, 3) with another drawing of the face in its place."""

    def on(self, picture: Image) -> Canvas:
        """The same square of another picture of the same size."""


class MotionModel(Protocol):
    """Features in pieces of any size to motion; its state is a value. `last`: all frames still owed come out."""

    def start(self, canonical: Array, reference: Motion, seed: int, silence: Array) -> Any: ...
    def advance(
        self, state: Any, features: Array, *, steps: int, guidance: float, last: bool
    ) -> tuple[Motion, Any]: ...


@dataclass(frozen=True)
class Speech:
    """What turns sound into motion."""

    audio_encoder: AudioEncoder
    motion_model: MotionModel

    @cached_property
    def silence(self) -> Array:
        """(C,) the features of silence: the middle of two silent seconds."""
        seconds = np.zeros(50 * SAMPLES_PER_FRAME, np.float32)
        features, state = self.audio_encoder.encode(self.audio_encoder.start(), seconds)
        silence: Array = np.concatenate([features, self.audio_encoder.flush(state)])[25]
        return silence


@dataclass(frozen=True)
class EncodedPortrait:
    """A picture, encoded once for any number of films; framing: how its face was cropped, as a `Motion` says it.

    matte: the alpha matte of the picture as grey levels, where frames are to have an alpha channel; the canvas then
    holds the foreground's colours alone.
    """

    canvas: Canvas
    source: Source
    framing: str = FRAMINGS[0]
    matte: Canvas | None = None

    @property
    def rest(self) -> Motion:
        """The source's own motion (T = 1), which knows the framing."""
        return replace(self.source.rest, framing=self.framing)


Record = Callable[[Motion], None]
Edit = Callable[[Motion, int], Motion]  # of the frames from that number on


@dataclass(frozen=True)
class TalkingPortraitPipeline:
    """find_canvas(image, face, box, crop, framing) finds the face, track(frames) follows one through a film at 25 fps,
    load_speech() is called when the first sound comes. begin(motion, rest, first, frame) and relative(motion, first,
    rest) lead motion of the model's or of a film from how the photograph looks; absolute(motion, rest) takes what of it
    the absolute mode draws. Where an engine can tell:
    find_squares(image), left, top and side in px of the squares around all faces as they are numbered;
    openings(source, motion), how far mouth and eyes are open, each (T,). Where an engine can retarget eyes and lips:
    measure(frames), how far a film's are open, and retargeting(source, eyes, lips), the edit that opens them so far."""

    renderer: Renderer
    find_canvas: Callable[..., Canvas]
    track: Callable[[Iterable[Image]], Iterator[Motion]]
    load_speech: Callable[[], Speech]
    begin: Callable[[Motion, Motion, Motion, int], Motion] = start_from
    relative: Callable[[Motion, Motion, Motion], Motion] = relative_to
    absolute: Callable[[Motion, Motion], Motion] = as_made
    find_squares: Callable[[Image], list[Square]] | None = None
    openings: Callable[..., tuple[Array, Array]] | None = None
    measure: Callable[[Iterable[Image]], Openings] | None = None
    retargeting: Callable[[Any, Array | float | None, Array | float | None], Edit] | None = None

    @staticmethod
    def mesh(checkpoint: Path | None = None) -> TalkingPortraitPipeline:
        """The engine that ships with the package; `checkpoint` is a motion model of one's own (train/export.py).
        Raises InputError where weights are missing or damaged."""
        from kdtalker.mesh.engine import load

        return load(checkpoint)

    @staticmethod
    def liveportrait(
        device: str = "auto",
        precision: str = "auto",
        weights: Path | None = None,
        checkpoint: Path | None = None,
        compiled: bool = False,
    ) -> TalkingPortraitPipeline:
        """The published networks of KDTalker and LivePortrait, from files that were fetched before; `weights` is a
        folder that is looked in first, `checkpoint` a motion model of one's own in place of KDTalker's; `compiled`
        paints by torch.compile (experimental).

        Raises InputError where one is missing or damaged, or the device is not there.
        """
        from kdtalker.liveportrait.engine import load
        from kdtalker.weights import find

        return load(partial(find, folder=weights), device, precision, checkpoint, compiled)

    @cached_property
    def speech(self) -> Speech:
        return self.load_speech()

    def portrait(
        self,
        image: Image,
        *,
        face: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        crop: bool = False,
        alpha: bool = False,
        framing: str = FRAMINGS[0],
    ) -> EncodedPortrait:
        """Find and encode the face in an (H, W, 3) RGB picture: the largest, number `face` by size from 0, or the one
        in `box` (left, top, width, height in px). `crop`: frames are the face's square alone. `alpha`: frames are
        (H, W, 4), the person alone with straight alpha. framing: "speech" for sound, "driving" for a film or template;
        the published engine crops the face for either in another way.

        Raises InputError where there is no such face, and for another framing.
        """
        if framing not in FRAMINGS:
            raise InputError(f"The framing '{framing}' was asked for, known are {' and '.join(FRAMINGS)}.")
        canvas = self.find_canvas(image, face=face, box=box, crop=crop, framing=framing)
        source = self.renderer.encode_source(canvas.face)
        if not alpha:
            return EncodedPortrait(canvas, source, framing)
        from kdtalker.backdrop import isolate

        foreground, matte = isolate(canvas.picture)
        levels = np.repeat(np.rint(255 * matte).astype(np.uint8)[..., None], 3, axis=2)
        alone = canvas.on(foreground)
        return EncodedPortrait(alone, self.renderer.isolate(source, alone.face), framing, canvas.on(levels))

    def start(
        self,
        portrait: EncodedPortrait,
        options: Options | None = None,
        record: Record | None = None,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> Session:
        """A film that takes its sound piece by piece. `edit` has the last word on its motion, `record` is shown every
        piece as it is drawn. `head`: the motion of another film, whose head's way it takes, forward and backward in
        turn. Raises InputError for options that the engine cannot meet."""
        options = options or Options()
        check(options, self.renderer.anatomy)
        return Session(self, portrait, options, record, edit=edit, head=head)

    def animate(
        self,
        portrait: EncodedPortrait,
        sound: Iterable[Array],
        options: Options | None = None,
        record: Record | None = None,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> Iterator[Image]:
        """The frames (H, W, 3) of a whole film; `sound` comes in pieces of any size, mono at 16 kHz."""
        session = self.start(portrait, options, record, edit=edit, head=head)
        for samples in sound:
            yield from session.push(samples)
        yield from session.flush()

    def reenact(
        self,
        portrait: EncodedPortrait,
        driving: Iterable[Motion],
        options: Options | None = None,
        record: Record | None = None,
        edit: Edit | None = None,
    ) -> Iterator[Image]:
        """The frames of a portrait that moves as another face does, relative to that one's first frame."""
        first, frame, options = None, 0, options or Options()
        source, rest, anatomy = portrait.source, portrait.rest, self.renderer.anatomy
        check(options, anatomy)
        for motion in driving:
            first = motion[:1] if first is None else first
            moved = edited(self.transfer(options, motion, first, rest), source, anatomy, options, frame=frame)
            yield from self.draw(portrait, edit(moved, frame) if edit else moved, record)
            frame += len(motion)

    def transfer(self, options: Options, motion: Motion, first: Motion, rest: Motion) -> Motion:
        """Another face's motion carried over to `rest`: by its difference from its own first frame, or absolutely."""
        return self.absolute(motion, rest) if options.absolute else self.relative(motion, first, rest)

    def draw(self, portrait: EncodedPortrait, motion: Motion, record: Record | None) -> Iterator[Image]:
        """The frames of a motion as it is."""
        if record:
            record(motion)
        for frame, face in enumerate(self.renderer.render(portrait.source, motion)):
            if portrait.matte is None:
                yield portrait.canvas.paste(face)
            else:
                yield self._with_alpha(portrait, portrait.matte, motion[frame : frame + 1], face)

    def _with_alpha(self, portrait: EncodedPortrait, matte: Canvas, motion: Motion, face: Image) -> Image:
        """One frame (H, W, 4)."""
        still = matte.face[..., 0].astype(np.float32) / np.float32(255)
        colours, moved = self.renderer.matte(portrait.source, still, motion, face)
        levels = np.repeat(np.rint(255 * moved).astype(np.uint8)[..., None], 3, axis=2)
        return np.dstack([portrait.canvas.paste(colours), matte.paste(levels)[..., :1]])
