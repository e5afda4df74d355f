"""One film in the making: sound is queued, frames are made when they are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from kdtalker import voice
from kdtalker.acting import led, performed
from kdtalker.audio import SAMPLES_PER_FRAME
from kdtalker.edits import with_head
from kdtalker.errors import InputError
from kdtalker.motion import Array, Motion
from kdtalker.options import Options
from kdtalker.renderer import Image, Source
from kdtalker.voice import Voice

if TYPE_CHECKING:
    from kdtalker.pipeline import Edit, EncodedPortrait, Record, Speech, TalkingPortraitPipeline

_PIECE = 25 * SAMPLES_PER_FRAME  # longer sound is worked on a second at a time, so that memory stays the same


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
        *,
        edit: Edit | None,
        head: Iterable[Motion] | None,
    ) -> None:
        self._queue: deque[Array] = deque()
        self._has_ended = False
        motions = self._act(pipeline, portrait, options, head)
        self._line = self._draw(pipeline, portrait, motions, record, edit)

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

    def _draw(
        self,
        pipeline: TalkingPortraitPipeline,
        portrait: EncodedPortrait,
        motions: Iterator[Motion | None],
        record: Record | None,
        edit: Edit | None,
    ) -> Iterator[Image | None]:
        """All frames in order; None where more sound is needed."""
        frame = 0
        for motion in motions:
            if motion is None:
                yield None
                continue
            yield from pipeline.draw(portrait, edit(motion, frame) if edit else motion, record)
            frame += len(motion)

    def _act(
        self,
        pipeline: TalkingPortraitPipeline,
        portrait: EncodedPortrait,
        options: Options,
        head: Iterable[Motion] | None,
    ) -> Iterator[Motion | None]:
        """Motion as it is drawn; None where more sound is needed."""
        source, rest = portrait.source, portrait.rest
        lead = None if head is None else led(head, partial(pipeline.transfer, options), rest)
        first, frame = None, 0
        for sampled in self._sample(pipeline.speech, source, options):
            if sampled is None:
                yield None
                continue
            motion, heard = sampled
            first = motion[:1] if first is None else first
            is_absolute = options.absolute
            begun = pipeline.absolute(motion, rest) if is_absolute else pipeline.begin(motion, rest, first, frame)
            if lead is not None:
                begun = with_head(begun, Motion.concatenate(list(islice(lead, len(begun)))))
            yield performed(begun, source, pipeline.renderer.anatomy, options, frame=frame, voice=heard)
            frame += len(motion)

    def _sample(self, speech: Speech, source: Source, options: Options) -> Iterator[tuple[Motion, Voice] | None]:
        """Motion as sampled with the voice of its frames, a few at a time; None where more sound is needed."""
        encoder, model = speech.audio_encoder, speech.motion_model
        encoded, listening, heard = encoder.start(), voice.start(), voice.NOTHING_YET
        window = model.start(source.canonical, source.rest, options.seed, speech.silence)
        waiting, last = None, False
        while not last:
            if self._queue:
                samples = self._queue.popleft()
                features, encoded = encoder.encode(encoded, samples)
            elif self._has_ended:
                samples = np.zeros(0, np.float32)
                features, last = encoder.flush(encoded), True
            else:
                yield None
                continue
            new, listening = voice.listen(listening, samples, last=last)
            heard += new
            motion, window = model.advance(window, features, steps=options.steps, guidance=options.guidance, last=last)
            waiting = motion if waiting is None else Motion.concatenate([waiting, motion])
            ready = len(waiting) if last else max(0, min(len(waiting), len(heard) - voice.AHEAD))
            if ready:
                yield waiting[:ready], heard.foreseen(ready)
                waiting, heard = waiting[ready:], heard[ready:]
