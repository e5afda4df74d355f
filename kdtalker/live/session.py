"""One live face."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

from kdtalker.audio.prosody import LOOKAHEAD_FRAMES
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.options import WHOLE_WINDOWS
from kdtalker.core.protocols import EncodedPortrait, Engine
from kdtalker.live.drawing import Drawing
from kdtalker.live.frames import LiveFrame, LiveStats, Played
from kdtalker.live.hearing import Hearing
from kdtalker.live.idle import IdleLoop
from kdtalker.live.options import LiveOptions
from kdtalker.live.samples import resampler_lag
from kdtalker.live.timeline import Clock, Timeline
from kdtalker.live.worker import repeat_steps
from kdtalker.motion_stream import check_samples
from kdtalker.pipeline import TalkingPortraitPipeline

IDLE_HEAD = 0.4  # strength of the head's motion in idle motion: who listens moves less than who speaks


class LiveSession:
    """Animate one portrait live: sound in at any time, one frame with its 40 ms of sound out for every tick of the
    sound's clock.

    `take` is called once every 40 ms by whoever owns the clock. Hearing and drawing have a thread each. All methods may
    be called from any thread.
    """

    def __init__(
        self,
        pipeline: TalkingPortraitPipeline[Any],
        portrait: EncodedPortrait[Any],
        options: LiveOptions | None = None,
        *,
        idle: IdleLoop | None = None,
        clock: Clock = time.monotonic,
        threads: bool = True,
    ) -> None:
        """idle: the idle motion of another session of the same portrait and options, to be shared. clock, in seconds,
        decides only which pictures would be late. threads: False leaves the work to calls of `work`.

        Raises InputError for options that the engine does not have, and for a portrait with an alpha channel."""
        options = options or LiveOptions()
        engine = pipeline.engine
        if portrait.matte is not None:
            raise InputError("The portrait has an alpha channel, live frames have none; encode it with alpha=False.")
        self.idle = idle or IdleLoop(engine, portrait, options.options)
        start = partial(pipeline.start_motion, portrait, options.motion_options)
        start()  # which refuses options that the engine does not have
        idle_options = replace(options.options, lookahead=WHOLE_WINDOWS, head=IDLE_HEAD * options.options.head)
        self._start_idle_motion = partial(pipeline.start_motion, portrait, idle_options)
        need = needed_frames(engine, options.lookahead) * options.frame_samples + resampler_lag(options.sample_rate)
        picture = portrait.canvas.paste(portrait.canvas.face).copy()
        picture.flags.writeable = False
        self._timeline = Timeline(options, picture, portrait.rest, need=need, clock=clock)
        self._hearing = Hearing(self._timeline, start)
        self._drawing = Drawing(self._timeline, engine.renderer, portrait, self.idle)
        self._threads: list[Thread] = []
        if threads:
            self._threads = [repeat_steps(self._timeline, step) for step in (self._generate_motion, self._drawing.step)]

    @property
    def stats(self) -> LiveStats:
        """Return the counts so far."""
        return self._timeline.report()

    @property
    def error(self) -> BaseException | None:
        """Return the error after which no picture is drawn any more, while the sound goes on; None without one."""
        return self._timeline.error

    def push(self, samples: Array) -> int:
        """Add samples (N,), N from 0, float32 mono at the session's rate, -1..1, to the reply that is open, or begin
        one. Returns its number, from 0. Raises InputError for other sound, and where more than buffer_s would wait."""
        return self._timeline.push(check_samples(samples, f"{self._timeline.options.sample_rate} Hz"))

    def end_segment(self) -> None:
        """End the reply that is open; it is played to its end."""
        self._timeline.end_segment()

    def interrupt(self) -> tuple[Played, ...]:
        """Drop all that was not yet taken (barge-in). Returns what was played of each reply that had not ended."""
        return self._timeline.interrupt()

    def take(self) -> LiveFrame:
        """Return the next frame of 40 ms; waits for nothing."""
        return self._timeline.take()

    def work(self) -> bool:
        """Do a step of drawing and one of hearing in this thread; returns False where there is nothing to do."""
        has_drawn, has_heard = self._drawing.step(), self._generate_motion()
        return has_drawn or has_heard

    def close(self) -> None:
        """End the session and its threads, after the step that they are at."""
        self._timeline.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate_motion(self) -> bool:
        return self._hearing.step() or self.idle.make(self._start_idle_motion)


def needed_frames(engine: Engine[Any], lookahead: int) -> int:
    """Count the frames of sound, from a frame's own on, that its motion takes at most."""
    speech = engine.speech
    if lookahead == WHOLE_WINDOWS or speech.sliding is None:
        latency_frames = speech.audio_encoder.latency_frames + speech.motion_model.latency_frames
        return 1 + max(latency_frames, LOOKAHEAD_FRAMES)
    models = speech.sliding(lookahead)
    return models.hop_frames + models.lookahead_frames
