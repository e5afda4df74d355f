"""One stream: sound in pieces to the motion that is drawn, by whole windows or hop by hop."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from typing import Any, Generic, Protocol

import numpy as np

from kdtalker.audio.prosody import LOOKAHEAD_FRAMES, NO_PROSODY, extract_prosody, look_ahead, start_prosody
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import WHOLE_WINDOWS, Options
from kdtalker.core.protocols import (
    Edit,
    EncodedPortrait,
    Engine,
    Prosody,
    Sampling,
    SlidingSpeech,
    Source,
    SourceT,
    Speech,
)
from kdtalker.core.rates import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, frame_count
from kdtalker.edits.perform import add_nods, add_procedural_motion
from kdtalker.edits.transfer import ping_pong, replace_head, transfer_stream


class MotionStream(Generic[SourceT]):
    """Turn a stream of sound into the motion that is drawn, with nods, blinks, gaze and the options applied.

    `push` and `flush` are the two halves `generate` and `perform` one after the other; the halves of different pieces
    may run in different threads, each half in order.
    """

    def __init__(
        self,
        engine: Engine[SourceT],
        portrait: EncodedPortrait[SourceT],
        options: Options,
        *,
        edit: Edit | None = None,
        head: Iterable[Motion] | None = None,
    ) -> None:
        """edit: has the last word on the motion; head: driving motion whose head the portrait takes, forward and
        backward in turn. Raises InputError where the engine cannot look ahead as the options ask."""
        self._engine, self._portrait, self._options, self._edit = engine, portrait, options, edit
        self._head = (
            None if head is None else ping_pong(transfer_stream(engine, head, portrait.rest, absolute=options.absolute))
        )
        self._generator = start_generator(engine.speech, portrait.source, options)
        self._first: Motion | None = None  # the first generated frame
        self._frame = 0  # the number of the next frame
        self.has_ended = False

    def push(self, samples: Array) -> Motion:
        """Take samples (N,), float32 mono at 16 kHz, -1..1; return the motion of the frames that became final, T from
        0."""
        return self.perform(*self.generate(check_samples(samples)))

    def flush(self) -> Motion:
        """End the sound; return the motion of all frames still owed: ceil(samples / 640) in all."""
        return self.perform(*self.generate(None))

    def generate(self, samples: Array | None) -> tuple[Motion, Prosody]:
        """Take samples (N,), which were checked, or None for the end; return motion and prosody of the frames that
        became final. Raises InputError after the end."""
        if self.has_ended:
            raise InputError("This stream was flushed, it takes no more sound; start another.")
        if samples is not None:
            return self._generator.advance(samples)
        self.has_ended = True
        return self._generator.end()

    def copy(self) -> MotionStream[SourceT]:
        """Return a stream that has taken the same sound and goes on by itself. Not for a stream with a head."""
        twin = copy.copy(self)
        twin._generator = copy.copy(self._generator)
        return twin

    def perform(self, motion: Motion, prosody: Prosody) -> Motion:
        """Turn generated motion (T frames, T from 0) into the motion that is drawn."""
        if not len(motion):
            return motion
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


def check_samples(samples: Array, rate: str = "16 kHz") -> Array:
    """Copy samples (N,) as float32 within -1..1. Raises InputError for another shape or type, which names the rate."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise InputError(f"Sound has the shape {samples.shape}, wanted (samples,): mono at {rate}.")
    if samples.dtype.kind != "f":
        raise InputError(
            f"Sound has numbers of the type {samples.dtype}, wanted float32 from -1 to 1: divide int16 by 32768."
        )
    samples = np.array(samples, np.float32)
    return np.clip(np.nan_to_num(samples), -1, 1)


class Generator(Protocol):
    """Generate motion from sound, together with the prosody of its frames."""

    def advance(self, samples: Array) -> tuple[Motion, Prosody]:
        """Take samples (N,); return the frames that became final, T from 0."""

    def end(self) -> tuple[Motion, Prosody]:
        """End the sound; return all frames still owed."""


def start_generator(speech: Speech, source: Source, options: Options) -> Generator:
    """Start the generator that the options ask for. Raises InputError where the models cannot look ahead so."""
    if options.lookahead == WHOLE_WINDOWS:
        return WindowedGenerator(speech, source, options)
    if speech.sliding is None:
        raise InputError(
            f"Option 'lookahead' is {options.lookahead}, but this engine makes motion in whole windows; leave it out "
            "or choose the engine 'mesh' with a model that has context frames."
        )
    return SlidingGenerator(speech.sliding(options.lookahead), speech.silence, source, options)


def piece_samples(options: Options) -> int:
    """Return the most samples that are worked on at once: of live sound a frame's, so that no frame waits for later
    ones, else a second's, so that memory stays the same however long the sound is."""
    return SAMPLE_RATE_HZ if options.lookahead == WHOLE_WINDOWS else SAMPLES_PER_FRAME


class WindowedGenerator:
    """Generate motion in whole windows of the model; the silence gate looks a few frames ahead."""

    def __init__(self, speech: Speech, source: Source, options: Options) -> None:
        self._encoder, self._model = speech.audio_encoder, speech.motion_model
        self._encoded, self._heard = self._encoder.start(), start_prosody()
        sampling = Sampling(options.steps, options.guidance)
        self._window: Any = self._model.start(
            source.canonical, source.rest, speech.silence, seed=options.seed, sampling=sampling
        )
        self._motion, self._prosody = source.rest[:0], NO_PROSODY  # frames that are not yet handed out

    def advance(self, samples: Array) -> tuple[Motion, Prosody]:
        features, self._encoded = self._encoder.encode(self._encoded, samples)
        return self._absorb(features, samples, last=False)

    def end(self) -> tuple[Motion, Prosody]:
        return self._absorb(self._encoder.flush(self._encoded), np.zeros(0, np.float32), last=True)

    def _absorb(self, features: Array, samples: Array, *, last: bool) -> tuple[Motion, Prosody]:
        heard, self._heard = extract_prosody(self._heard, samples, last=last)
        self._prosody += heard
        motion, self._window = self._model.advance(self._window, features, last=last)
        self._motion = Motion.concatenate([self._motion, motion])
        ready = len(self._motion)
        if not last:
            ready = max(0, min(ready, len(self._prosody) - LOOKAHEAD_FRAMES))
        final = self._motion[:ready], look_ahead(self._prosody, ready)
        self._motion, self._prosody = self._motion[ready:], self._prosody[ready:]
        return final


class SlidingGenerator:
    """Generate motion hop by hop: frame n is final once hop_frames - 1 + lookahead_frames frames more have been heard,
    and depends on no sample after them. At the end silence follows."""

    def __init__(self, speech: SlidingSpeech, silence: Array, source: Source, options: Options) -> None:
        self._speech, self._rest = speech, source.rest
        self._encoded, self._heard = speech.encoder.start(), start_prosody()
        sampling = Sampling(options.steps, options.guidance)
        self._window: Any = speech.motion_model.start(
            source.canonical, source.rest, silence, seed=options.seed, sampling=sampling
        )
        self._pending = np.zeros(0, np.float32)  # samples that are not yet encoded
        self._prosody = NO_PROSODY  # of frames that are not yet handed out
        self._samples = self._frames = 0  # taken and given so far

    def advance(self, samples: Array) -> tuple[Motion, Prosody]:
        return self._absorb(samples, last=False)

    def end(self) -> tuple[Motion, Prosody]:
        return self._absorb(np.zeros(0, np.float32), last=True)

    def _absorb(self, samples: Array, *, last: bool) -> tuple[Motion, Prosody]:
        heard, self._heard = extract_prosody(self._heard, samples, last=last)
        self._prosody += heard
        self._pending, self._samples = np.concatenate([self._pending, samples]), self._samples + len(samples)
        parts, total = [self._rest[:0]], frame_count(self._samples)
        first = self._frames
        while len(self._pending) >= self._awaited() or (last and self._frames < total):
            parts.append(self._hop())
        motion = Motion.concatenate(parts)[: total - first if last else None]
        final = motion, look_ahead(self._prosody, len(motion), self._speech.lookahead_frames)
        self._prosody = self._prosody[len(motion) :]
        return final

    def _awaited(self) -> int:
        """Return the number of samples that the next hop takes."""
        speech = self._speech
        frames = speech.hop_frames + (0 if self._frames else speech.lookahead_frames)
        return frames * SAMPLES_PER_FRAME

    def _hop(self) -> Motion:
        """Make the next hop; samples that are not there are silence."""
        awaited = self._awaited()
        samples, self._pending = self._pending[:awaited], self._pending[awaited:]
        samples = np.pad(samples, (0, awaited - len(samples)))
        features, self._encoded = self._speech.encoder.slide(self._encoded, samples)
        motion, self._window = self._speech.motion_model.slide(self._window, features)
        self._frames += len(motion)
        return motion
