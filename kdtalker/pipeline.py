"""From a portrait and a sound to frames: everything on one screen.

    samples ─► audio encoder ─► motion model ─► edits ─► renderer ─► paste ─► frames

Models are read-only and shared; all that belongs to one film lives in its Session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kdtalker.audio import SAMPLES_PER_FRAME
from kdtalker.edits import blink, relative_to, start_from, still, stronger
from kdtalker.errors import InputError
from kdtalker.motion import Array, Motion
from kdtalker.options import Options
from kdtalker.renderer import Image, Renderer, Source

if TYPE_CHECKING:
    from kdtalker.audio_encoder import AudioEncoder
    from kdtalker.liveportrait.openings import Openings

Square = tuple[int, int, int]
_PIECE = 25 * SAMPLES_PER_FRAME  # longer sound is worked on a second at a time, so that memory stays the same


class Canvas(Protocol):
    """A picture with the square around its face cut out: `face` (S, S, 3)."""

    @property
    def face(self) -> Image: ...

    def paste(self, face: Image) -> Image:
        """The whole picture (H, W, 3) with another drawing of the face in its place."""


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
    """A picture, encoded once for any number of films."""

    canvas: Canvas
    source: Source


Record = Callable[[Motion], None]
Edit = Callable[[Motion, int], Motion]  # of the frames from that number on


@dataclass(frozen=True)
class TalkingPortraitPipeline:
    """find_canvas(image, face, box, crop) finds the face, track(frames) follows one through a film at 25 fps,
    load_speech() is called when the first sound comes. begin(motion, rest, first, frame) and relative(motion, first,
    rest) lead motion of the model's or of a film from how the photograph looks. Where an engine can tell:
    find_squares(image), left, top and side in px of the squares around all faces as they are numbered;
    openings(source, motion), how far mouth and eyes are open, each (T,). Where an engine can retarget eyes and lips:
    measure(frames), how far a film's are open, and retargeting(source, eyes, lips), the edit that opens them so far."""

    renderer: Renderer
    find_canvas: Callable[..., Canvas]
    track: Callable[[Iterable[Image]], Iterator[Motion]]
    load_speech: Callable[[], Speech]
    begin: Callable[[Motion, Motion, Motion, int], Motion] = start_from
    relative: Callable[[Motion, Motion, Motion], Motion] = relative_to
    find_squares: Callable[[Image], list[Square]] | None = None
    openings: Callable[..., tuple[Array, Array]] | None = None
    measure: Callable[[Iterable[Image]], Openings] | None = None
    retargeting: Callable[[Any, Array | float | None, Array | float | None], Edit] | None = None

    @staticmethod
    def mesh() -> TalkingPortraitPipeline:
        """The engine that ships with the package. Raises InputError where its weights are missing or damaged."""
        from kdtalker.mesh.engine import load

        return load()

    @staticmethod
    def liveportrait(
        device: str = "auto", precision: str = "auto", weights: Path | None = None
    ) -> TalkingPortraitPipeline:
        """The published networks of KDTalker and LivePortrait, from files that were fetched before; `weights` is a
        folder that is looked in first.

        Raises InputError where one is missing or damaged, or the device is not there.
        """
        from kdtalker.liveportrait.engine import load
        from kdtalker.weights import find

        return load(partial(find, folder=weights), device, precision)

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
    ) -> EncodedPortrait:
        """Find and encode the face in an (H, W, 3) RGB picture: the largest, number `face` by size from 0, or the one
        in `box` (left, top, width, height in px). `crop`: frames are the face's square alone."""
        canvas = self.find_canvas(image, face=face, box=box, crop=crop)
        return EncodedPortrait(canvas, self.renderer.encode_source(canvas.face))

    def start(
        self,
        portrait: EncodedPortrait,
        options: Options | None = None,
        record: Record | None = None,
        edit: Edit | None = None,
    ) -> Session:
        """A film that takes its sound piece by piece. `edit` has the last word on its motion, `record` is shown every
        piece as it is drawn."""
        return Session(self, portrait, options or Options(), record, edit)

    def animate(
        self,
        portrait: EncodedPortrait,
        sound: Iterable[Array],
        options: Options | None = None,
        record: Record | None = None,
        edit: Edit | None = None,
    ) -> Iterator[Image]:
        """The frames (H, W, 3) of a whole film; `sound` comes in pieces of any size, mono at 16 kHz."""
        session = self.start(portrait, options, record, edit)
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
        for motion in driving:
            first = motion[:1] if first is None else first
            moved = motion if options.absolute else self.relative(motion, first, portrait.source.rest)
            moved = edited(moved, portrait.source.rest, options)
            yield from self.draw(portrait, edit(moved, frame) if edit else moved, record)
            frame += len(motion)

    def draw(self, portrait: EncodedPortrait, motion: Motion, record: Record | None) -> Iterator[Image]:
        """The frames of a motion as it is."""
        if record:
            record(motion)
        for face in self.renderer.render(portrait.source, motion):
            yield portrait.canvas.paste(face)


def edited(motion: Motion, rest: Motion, options: Options) -> Motion:
    """The motion with the strengths that were asked for."""
    motion = stronger(motion, rest, options.expression, options.head)
    return still(motion, rest) if options.still else motion


class Session:
    """One film in the making. Sound is queued by `push`; the frames that it gives are made when they are taken.

    All iterators that push and flush return take from the same line of frames: whichever is asked first hands out
    the next one, so the film is the same however its sound was cut and whenever its frames were taken.
    """

    def __init__(
        self,
        pipeline: TalkingPortraitPipeline,
        portrait: EncodedPortrait,
        options: Options,
        record: Record | None,
        edit: Edit | None = None,
    ) -> None:
        self._queue: deque[Array] = deque()
        self._has_ended = False
        self._line = self._make(pipeline, portrait, options, record, edit)

    def push(self, samples: Array) -> Iterator[Image]:
        """Add samples (N,), float32 mono at 16 kHz, -1..1; N from 0. Returns the frames that they make possible."""
        if self._has_ended:
            raise InputError("This session was flushed, it takes no more sound; start another.")
        samples = np.array(samples, np.float32)
        if samples.ndim != 1:
            raise InputError(f"Sound has the shape {samples.shape}, wanted (samples,): mono at 16 kHz.")
        samples = np.clip(np.nan_to_num(samples), -1, 1)
        self._queue.extend(samples[start : start + _PIECE] for start in range(0, len(samples), _PIECE))
        return self._take()

    def flush(self) -> Iterator[Image]:
        """The sound has ended. Returns the frames still owed: ceil(samples / 640) in all."""
        self._has_ended = True
        return self._take()

    def _take(self) -> Iterator[Image]:
        for frame in self._line:
            if frame is None:
                return
            yield frame

    def _make(
        self,
        pipeline: TalkingPortraitPipeline,
        portrait: EncodedPortrait,
        options: Options,
        record: Record | None,
        edit: Edit | None,
    ) -> Iterator[Image | None]:
        """All frames in order; None where more sound is needed."""
        rest = portrait.source.rest
        motions = self._sample(pipeline.speech, portrait.source, options)
        first, frame = None, 0
        for motion in motions:
            if motion is None:
                yield None
                continue
            first = motion[:1] if first is None else first
            begun = motion if options.absolute else pipeline.begin(motion, rest, first, frame)
            moved = blink(edited(begun, rest, options), portrait.source.shut, options.seed, frame)
            yield from pipeline.draw(portrait, edit(moved, frame) if edit else moved, record)
            frame += len(motion)

    def _sample(self, speech: Speech, source: Source, options: Options) -> Iterator[Motion | None]:
        """Motion as sampled, a few frames at a time; None where more sound is needed."""
        encoder, model = speech.audio_encoder, speech.motion_model
        heard = encoder.start()
        window = model.start(source.canonical, source.rest, options.seed, speech.silence)
        last = False
        while not last:
            if self._queue:
                features, heard = encoder.encode(heard, self._queue.popleft())
            elif self._has_ended:
                features, last = encoder.flush(heard), True
            else:
                yield None
                continue
            motion, window = model.advance(window, features, steps=options.steps, guidance=options.guidance, last=last)
            if len(motion):
                yield motion
