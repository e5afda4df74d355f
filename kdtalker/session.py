"""One stream: sound in pieces to frames. Sound is queued, frames are made when they are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Generic

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import (
    Canvas,
    Edit,
    EncodedPortrait,
    Engine,
    Prosody,
    Record,
    Renderer,
    SourceT,
)
from kdtalker.core.threads import Future
from kdtalker.motion_stream import MotionStream, check_samples, piece_samples


class Session(Generic[SourceT]):
    """Animate one portrait by a stream of sound.

    All iterators that `push` and `flush` return take from the same line of frames: whichever is asked first hands out
    the next one, so the film is the same however its sound was cut and whenever its frames were taken.
    """

    def __init__(
        self,
        engine: Engine[SourceT],
        portrait: EncodedPortrait[SourceT],
        options: Options,
        *,
        record: Record | None = None,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> None:
        """record: called with each piece of motion as it is drawn; edit: has the last word on the motion; head: driving
        motion whose head the portrait takes, forward and backward in turn."""
        self._renderer, self._portrait, self._record = engine.renderer, portrait, record
        self._start = partial(MotionStream, engine, portrait, options, edit=edit, head=head)
        self._stream: MotionStream[SourceT] | None = None  # made when the first frame is taken
        self._piece_samples = piece_samples(options)
        self._queue: deque[Array] = deque()
        self._has_ended = False
        self._has_failed = False
        self._frames: Iterator[Image] = iter(())  # of the motion that is being drawn
        self._following: Iterator[Array] | None = None  # sound that is taken as it is needed
        self._generated: Future[tuple[Motion, Prosody]] | None = None  # the motion after that

    def push(self, samples: Array) -> Iterator[Image]:
        """Add samples (N,), float32 mono at 16 kHz, -1..1; N from 0. Returns the frames that they make possible."""
        if self._has_ended:
            raise InputError("This session was flushed, it takes no more sound; start another.")
        samples, size = check_samples(samples), self._piece_samples
        self._queue.extend(samples[start : start + size] for start in range(0, len(samples), size))
        return self._take()

    def flush(self) -> Iterator[Image]:
        """End the sound. Returns the frames still owed: ceil(samples / 640) in all."""
        self._has_ended = True
        return self._take()

    def follow(self, sound: Iterable[Array]) -> Iterator[Image]:
        """Take the samples of a whole sound, as they are needed, and end it. Returns the frames."""
        self._following = iter(sound)
        return self._take()

    def _take(self) -> Iterator[Image]:
        """Yield frames until more sound is needed. After an error there are no more: parts of the stream are lost."""
        if self._has_failed:
            raise InputError("This session ended in an error; start another.")
        try:
            yield from self._produce()
        except Exception:
            self._has_failed = True
            raise

    def _produce(self) -> Iterator[Image]:
        while True:
            for frame in self._frames:  # noqa: UP028 - `yield from` would close the line where one reader stops
                yield frame
            generated, self._generated = self._generated or self._generate(), None
            if generated is None or self._stream is None:
                return
            motion, prosody = generated.result()
            if len(motion):
                drawn = self._stream.perform(motion, prosody)
                self._generated = self._generate()  # in a thread, beside the drawing
                self._frames = draw_frames(self._renderer, self._portrait, drawn, self._record)

    def _generate(self) -> Future[tuple[Motion, Prosody]] | None:
        """Start to generate motion from the next piece of sound; None where more is needed, or all has been drawn."""
        stream = self._stream = self._stream or self._start()
        if not self._queue and self._following is not None:
            self._follow_on(next(self._following, None))
        if self._queue:
            return Future(partial(stream.generate, self._queue.popleft()))
        return Future(partial(stream.generate, None)) if self._has_ended and not stream.has_ended else None

    def _follow_on(self, samples: Array | None) -> None:
        """Queue the next samples of the sound that is followed; None: it has ended."""
        if samples is None:
            self._has_ended = True
            self._following = None
        else:
            self.push(samples)


def draw_frames(
    renderer: Renderer[SourceT], portrait: EncodedPortrait[SourceT], motion: Motion, record: Record | None = None
) -> Iterator[Image]:
    """Draw a motion and paste it back into the source image: one frame (H, W, 3), or (H, W, 4) with alpha, for each of
    the motion's."""
    if record:
        record(motion)
    for frame, face in enumerate(renderer.render(portrait.source, motion)):
        if portrait.matte is None:
            yield portrait.canvas.paste(face)
        else:
            yield _with_alpha(renderer, portrait, portrait.matte, motion[frame : frame + 1], face)


def _with_alpha(
    renderer: Renderer[SourceT], portrait: EncodedPortrait[SourceT], matte: Canvas, motion: Motion, face: Image
) -> Image:
    """Draw one frame (H, W, 4)."""
    still = matte.face[..., 0].astype(np.float32) / np.float32(255)
    colours, moved = renderer.matte(portrait.source, still, motion, face)
    levels = np.repeat(np.rint(255 * moved).astype(np.uint8)[..., None], 3, axis=2)
    return np.dstack([portrait.canvas.paste(colours), matte.paste(levels)[..., :1]])
