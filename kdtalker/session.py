"""One stream: sound in pieces to frames. Sound is queued, frames are made when they are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from kdtalker.audio.prosody import LOOKAHEAD_FRAMES, NO_PROSODY, extract_prosody, look_ahead, start_prosody
from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import (
    AudioEncoder,
    Canvas,
    Edit,
    EncodedPortrait,
    Engine,
    MotionModel,
    Prosody,
    Record,
    Renderer,
    Sampling,
    Source,
    SourceT,
)
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.core.threads import Future
from kdtalker.edits.perform import add_nods, add_procedural_motion
from kdtalker.edits.transfer import ping_pong, replace_head, transfer_stream

PIECE_SAMPLES = SAMPLE_RATE_HZ  # longer sound is worked on a second at a time, so that memory stays the same

EncoderStateT = TypeVar("EncoderStateT")
ModelStateT = TypeVar("ModelStateT")


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
        self._engine, self._portrait, self._options = engine, portrait, options
        self._record, self._edit = record, edit
        self._head = (
            None if head is None else ping_pong(transfer_stream(engine, head, portrait.rest, absolute=options.absolute))
        )
        self._stream: MotionStream[Any, Any] | None = None  # made when the first frame is taken
        self._queue: deque[Array] = deque()
        self._has_ended = False
        self._has_failed = False
        self._first: Motion | None = None  # the first generated frame
        self._frame = 0  # the number of the next frame
        self._frames: Iterator[Image] = iter(())  # of the motion that is being drawn
        self._following: Iterator[Array] | None = None  # sound that is taken as it is needed
        self._generated: Future[tuple[Motion, Prosody]] | None = None  # the motion after that

    def push(self, samples: Array) -> Iterator[Image]:
        """Add samples (N,), float32 mono at 16 kHz, -1..1; N from 0. Returns the frames that they make possible."""
        if self._has_ended:
            raise InputError("This session was flushed, it takes no more sound; start another.")
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise InputError(f"Sound has the shape {samples.shape}, wanted (samples,): mono at 16 kHz.")
        if samples.dtype.kind != "f":
            raise InputError(
                f"Sound has numbers of the type {samples.dtype}, wanted float32 from -1 to 1: divide int16 by 32768."
            )
        samples = np.array(samples, np.float32)
        samples = np.clip(np.nan_to_num(samples), -1, 1)
        self._queue.extend(samples[start : start + PIECE_SAMPLES] for start in range(0, len(samples), PIECE_SAMPLES))
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
            if generated is None:
                return
            motion, prosody = generated.result()
            if len(motion):
                drawn = self._perform(motion, prosody)
                self._generated = self._generate()  # in a thread, beside the drawing
                self._frames = draw_frames(self._engine.renderer, self._portrait, drawn, self._record)

    def _generate(self) -> Future[tuple[Motion, Prosody]] | None:
        """Start to generate motion from the next piece of sound; None where more is needed, or all has been drawn."""
        stream = self._stream = self._stream or self._start()
        if not self._queue and self._following is not None:
            self._follow_on(next(self._following, None))
        if self._queue:
            return Future(partial(stream.advance, self._queue.popleft()))
        return Future(stream.end) if self._has_ended and not stream.has_ended else None

    def _follow_on(self, samples: Array | None) -> None:
        """Queue the next samples of the sound that is followed; None: it has ended."""
        if samples is None:
            self._has_ended = True
            self._following = None
        else:
            self.push(samples)

    def _start(self) -> MotionStream[Any, Any]:
        speech = self._engine.speech
        source = self._portrait.source
        return MotionStream(speech.audio_encoder, speech.motion_model, speech.silence, source, self._options)

    def _perform(self, motion: Motion, prosody: Prosody) -> Motion:
        """Turn generated motion into the motion that is drawn."""
        engine, rest = self._engine, self._portrait.rest
        first = self._first = motion[:1] if self._first is None else self._first
        if self._options.absolute:
            motion = engine.transfer_absolute(motion, rest=rest)
        else:
            motion = engine.start_from(motion, rest=rest, first=first, frame=self._frame)
        model, source = engine.renderer.expression_model, self._portrait.source
        motion = add_nods(motion, source, model, self._options, frame=self._frame, prosody=prosody)
        if self._head is not None:
            motion = replace_head(motion, Motion.concatenate(list(islice(self._head, len(motion)))))
        motion = add_procedural_motion(motion, source, model, self._options, frame=self._frame, prosody=prosody)
        motion = self._edit(motion, self._frame) if self._edit else motion
        self._frame += len(motion)
        return motion


class MotionStream(Generic[EncoderStateT, ModelStateT]):
    """Generate motion from sound, together with the prosody of its frames, which looks a few frames ahead."""

    def __init__(
        self,
        encoder: AudioEncoder[EncoderStateT],
        model: MotionModel[ModelStateT],
        silence: Array,
        source: Source,
        options: Options,
    ) -> None:
        """silence (C,): the features of silence."""
        self._encoder, self._model = encoder, model
        self._encoded, self._heard = encoder.start(), start_prosody()
        sampling = Sampling(options.steps, options.guidance)
        self._window = model.start(source.canonical, source.rest, silence, seed=options.seed, sampling=sampling)
        self._motion, self._prosody = source.rest[:0], NO_PROSODY  # frames that are not yet handed out
        self.has_ended = False

    def advance(self, samples: Array) -> tuple[Motion, Prosody]:
        """Take samples (N,); return the frames that became final, T from 0."""
        features, self._encoded = self._encoder.encode(self._encoded, samples)
        return self._absorb(features, samples)

    def end(self) -> tuple[Motion, Prosody]:
        """End the sound; return all frames still owed."""
        self.has_ended = True
        return self._absorb(self._encoder.flush(self._encoded), np.zeros(0, np.float32))

    def _absorb(self, features: Array, samples: Array) -> tuple[Motion, Prosody]:
        heard, self._heard = extract_prosody(self._heard, samples, last=self.has_ended)
        self._prosody += heard
        motion, self._window = self._model.advance(self._window, features, last=self.has_ended)
        self._motion = Motion.concatenate([self._motion, motion])
        ready = len(self._motion)
        if not self.has_ended:
            ready = max(0, min(ready, len(self._prosody) - LOOKAHEAD_FRAMES))
        final = self._motion[:ready], look_ahead(self._prosody, ready)
        self._motion, self._prosody = self._motion[ready:], self._prosody[ready:]
        return final


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
