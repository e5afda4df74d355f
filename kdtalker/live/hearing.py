"""Hear the sound of replies: samples to motion, ahead of what is played."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion
from kdtalker.live.blend import Transition
from kdtalker.live.reply import Reply
from kdtalker.live.samples import HearingResampler
from kdtalker.live.timeline import Timeline

AHEAD_FRAMES = 50  # motion that is generated ahead of what is played
PIECE_FRAMES = 2  # sound that is heard at a time
BEHIND_FRAMES = 4  # hearing that is so far behind what is played begins anew, ahead of it by RESTART_FRAMES
RESTART_FRAMES = 8
GUESS_TICKS, GUESS_PICTURES = 5, 2  # without new sound for so long and with so few pictures left, the end is guessed
NO_SAMPLES = np.zeros(0, np.float32)


class MotionFeed(Protocol):
    """Turn samples at 16 kHz into the motion that is drawn; see `MotionStream`."""

    def push(self, samples: Array) -> Motion: ...
    def flush(self) -> Motion: ...
    def copy(self) -> MotionFeed: ...


@dataclass
class _ReplyStream:
    """Hold the generation of one reply's motion, which is done up to `frame`."""

    reply: Reply
    feed: MotionFeed
    resampler: HearingResampler
    frame: int = 0
    taken: int = 0  # samples of the reply


class Hearing:
    """Generate the motion of replies in their order, one piece a step."""

    def __init__(self, timeline: Timeline, start: Callable[[], MotionFeed]) -> None:
        """start: makes the feed of a reply."""
        self._timeline, self._start = timeline, start
        self._stream: _ReplyStream | None = None

    def step(self) -> bool:
        """Generate a piece of motion; returns False where there is nothing to hear."""
        with self._timeline.changed:
            work = self._choose()
        if work is None:
            return False
        work()
        return True

    def _choose(self) -> Callable[[], None] | None:
        reply = next((reply for reply in self._timeline.replies if not reply.is_heard), None)
        if reply is None:
            self._stream = None
            return None
        stream = self._stream
        if stream is None or stream.reply is not reply:
            return partial(self._begin, reply, 0)
        newest = (reply.pushed - self._timeline.need) // reply.frame_samples  # whose motion could be made
        restart = min(newest, reply.position + RESTART_FRAMES)
        if reply.position - stream.frame > BEHIND_FRAMES and restart * reply.frame_samples > stream.taken:
            return partial(self._begin, reply, restart)
        return self._choose_piece(reply, stream) if stream.frame - reply.position < AHEAD_FRAMES else None

    def _choose_piece(self, reply: Reply, stream: _ReplyStream) -> Callable[[], None] | None:
        if reply.unheard:
            samples = reply.unheard.read(PIECE_FRAMES * reply.frame_samples)
            stream.taken += len(samples)
            return partial(self._push_audio, stream, samples)
        if reply.has_ended:
            return partial(self._end, stream)
        if self._lacks_sound(reply):
            reply.guessed = reply.pushed
            return partial(self._guess, stream)
        return None

    def _lacks_sound(self, reply: Reply) -> bool:
        """Tell whether a reply's waiting sound has to be played before more comes."""
        timeline = self._timeline
        is_late = timeline.tick - reply.pushed_tick >= GUESS_TICKS and len(reply.pictures) <= GUESS_PICTURES
        is_first = reply is timeline.replies[0] and reply.has_sound
        return is_late and is_first and reply.guessed < reply.pushed and reply.known(reply.drawn) is None

    def _begin(self, reply: Reply, frame: int) -> None:
        """Start to hear a reply from a frame on; sound before it is not heard."""
        resampler = HearingResampler(self._timeline.options.sample_rate)
        stream = _ReplyStream(reply, self._start(), resampler, frame, frame * reply.frame_samples)
        with self._timeline.changed:
            if frame and self._stream is not None:
                reply.unheard.read(stream.taken - self._stream.taken)
                self._timeline.counts["dropped"] += max(0, frame - reply.drawn)
                reply.forget(max(reply.drawn, frame))
                reply.motion.clear()
                reply.transition = None if reply.last is None else Transition(reply.last, frame)
            self._stream = stream

    def _push_audio(self, stream: _ReplyStream, samples: Array) -> None:
        began_s = time.perf_counter()
        heard = stream.resampler.advance(samples)
        motion = stream.feed.push(heard)
        self._add(stream, motion, began_s)

    def _end(self, stream: _ReplyStream) -> None:
        began_s = time.perf_counter()
        parts = [stream.feed.push(stream.resampler.advance(NO_SAMPLES, last=True)), stream.feed.flush()]
        self._add(stream, Motion.concatenate(parts), began_s)
        with self._timeline.changed:
            stream.reply.is_heard = True

    def _add(self, stream: _ReplyStream, motion: Motion, began_s: float) -> None:
        with self._timeline.changed:
            if self._timeline.error is not None:  # which came meanwhile: nobody draws it
                return
            for number in range(max(0, stream.reply.drawn - stream.frame), len(motion)):
                stream.reply.motion[stream.frame + number] = motion[number : number + 1]
            stream.frame += len(motion)
            if len(motion):
                self._timeline.average("hear_ms", 1000 * (time.perf_counter() - began_s) / len(motion))
            self._timeline.notify()

    def _guess(self, stream: _ReplyStream) -> None:
        """Generate the motion of the waiting sound as if no more came."""
        motion = stream.feed.copy().flush()
        with self._timeline.changed:
            if self._timeline.error is not None:
                return
            drawn = stream.reply.drawn
            stream.reply.guess = {
                stream.frame + number: motion[number : number + 1]
                for number in range(max(0, drawn - stream.frame), len(motion))
            }
            self._timeline.notify()
