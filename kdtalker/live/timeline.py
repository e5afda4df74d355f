"""The timeline of a live session: one count of frames for sound and pictures, whose clock is the sound.

    push -> replies (sound, motion, pictures) --\
                                                 take: frame n, its sound and its picture
    idle motion (pictures by tick) -------------/

Nothing here hears, draws or waits: `Hearing` and `Drawing` fill in what is lacking, under the timeline's lock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.blend import Transition
from kdtalker.live.frames import Activity, LiveFrame, LiveStats, PictureState, Played
from kdtalker.live.options import LiveOptions
from kdtalker.live.reply import Picture, Reply

Clock = Callable[[], float]  # seconds

MOST_REPLIES = 64  # that wait, the one that is played among them


class Timeline:
    """Order sound, pictures and interruptions in ticks of 40 ms. All attributes are guarded by `changed`."""

    def __init__(
        self, options: LiveOptions, portrait: Image, rest: Motion, *, need: int, clock: Clock = time.monotonic
    ) -> None:
        """portrait (H, W, 3) is shown until a picture was drawn, its motion is rest (T = 1); need: samples from a
        frame's first on that its motion takes."""
        self.options, self.need, self.clock = options, need, clock
        self.changed = Condition()
        self.tick = 0  # of the next frame
        self.generation = 0
        self.replies: deque[Reply] = deque()  # the first is played
        self.shown, self._shown_age = Picture(portrait, rest), 0  # frames since the one that it was drawn for
        self.idle_pictures: dict[int, Picture] = {}  # pictures of idle motion, by tick
        self.transition: Transition | None = None  # to idle motion, by tick
        self.taken_s: float | None = None  # when the last frame was taken
        self.is_closed = False
        self.version = 0  # grows with every change
        self.error: BaseException | None = None
        self.counts = dict.fromkeys(("new", "degraded", "repeated", "dropped", "skipped", "interrupts"), 0)
        self.first_frame_ms: float | None = None
        self._means = {"hear_ms": 0.0, "draw_ms": 0.0}
        self._segments = 0
        self._waiting = 0  # samples that wait to be played, of all replies
        self._pending: list[Played] = []

    def notify(self) -> None:
        """Wake those who wait for a change."""
        self.version += 1
        self.changed.notify_all()

    def wait_after(self, version: int) -> None:
        """Wait until something has changed since that version."""
        with self.changed:
            self.changed.wait_for(lambda: self.version != version or self.is_closed)

    @property
    def is_playing(self) -> bool:
        """Tell whether speech is played, not idle motion or a pause."""
        return bool(self.replies) and self.replies[0].is_playing

    def push(self, samples: Array) -> int:
        """Append clean samples (N,) to the reply that is open, or begin one; returns its number. Raises InputError
        where too many wait."""
        with self._open():
            return self._push(samples)

    def end_segment(self) -> None:
        """End the reply that is open, where there is one."""
        with self._open():
            if self.replies:
                self.replies[-1].has_ended = True
                self.notify()

    def interrupt(self) -> tuple[Played, ...]:
        """Drop all that was not taken; returns what was played of each reply that is not reported yet."""
        with self._open():
            return self._interrupt()

    def take(self) -> LiveFrame:
        """Return the next frame."""
        with self._open():
            return self._take()

    def fail(self, error: Exception) -> None:
        """Keep the first error, after which the sound alone goes on: nothing is heard or drawn any more."""
        with self.changed:
            self.error = self.error or error
            for reply in self.replies:
                reply.forget_unheard()
            self.notify()

    def close(self) -> None:
        """End the session."""
        with self.changed:
            self.is_closed = True
            self.notify()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Hold the lock. Raises InputError where the session was closed."""
        with self.changed:
            if self.is_closed:
                raise InputError("This live session was closed; start another.")
            yield

    def _push(self, samples: Array) -> int:
        waiting = self._waiting
        if waiting + len(samples) > self.options.buffer_s * self.options.sample_rate:
            raise InputError(
                f"{waiting / self.options.sample_rate:.1f} s of sound wait to be played, {len(samples)} samples more "
                f"are too many: at most {self.options.buffer_s:g} s wait; push them later."
            )
        if not self.replies or self.replies[-1].has_ended:
            if not len(samples):
                return self._segments
            if len(self.replies) >= MOST_REPLIES:
                raise InputError(
                    f"{len(self.replies)} replies wait to be played, at most {MOST_REPLIES} may; push the next one "
                    "later, or end fewer replies."
                )
            self.replies.append(Reply(self._segments, self.options.frame_samples, self.clock(), self.tick))
            self._segments += 1
        self.replies[-1].append(samples, self.tick, is_heard=self.error is None)
        self._waiting += len(samples)
        self.notify()
        return self.replies[-1].segment

    def _interrupt(self) -> tuple[Played, ...]:
        reports = [*self._pending, *(reply.report(interrupted=not reply.is_played) for reply in self.replies)]
        self._pending.clear()
        self.generation += 1
        if self.is_playing:
            self.start_idle(self.tick, self.shown.motion)
        self.replies.clear()
        self._waiting = 0
        self.counts["interrupts"] += 1
        self.notify()
        return tuple(reports)

    def start_idle(self, tick: int, held: Motion) -> None:
        """Go to idle motion at a tick, from a motion (T = 1)."""
        self.transition = Transition(held, tick)
        self.idle_pictures.clear()

    def _take(self) -> LiveFrame:
        tick, self.tick = self.tick, self.tick + 1
        self.taken_s = self.clock()
        self._finish(tick)
        sound, segment, activity = np.zeros(self.options.frame_samples, np.float32), None, Activity.IDLE
        position = 0
        reply = self.replies[0] if self.replies else None
        if reply is not None and self._is_due(reply, tick):
            if not reply.position:
                self.first_frame_ms = 1000 * (self.taken_s - reply.began_s)
            played = reply.played
            if self.options.source == "microphone" and reply.catch_up(self._wanted(reply)):
                self.counts["skipped"] += 1
            position, frame = reply.played, reply.position
            samples, picture = reply.play()
            self._waiting -= reply.played - played
            sound[: len(samples)] = samples
            activity, segment = Activity.SPEECH, reply.segment
            state = self._show(picture, frame)
            self._finish(tick + 1)
        else:
            if reply is not None:
                self._hold(reply, tick)
                activity = Activity.PAUSE if reply.position else Activity.IDLE
            state = self._show(self.idle_pictures.get(tick))
        for number in [number for number in self.idle_pictures if number <= tick]:
            del self.idle_pictures[number]
        ended, self._pending = tuple(self._pending), []
        self.notify()
        return LiveFrame(
            tick, self.shown.image, sound, activity, state, segment, self.generation, ended, position, self._shown_age
        )  # fmt: skip

    def _is_due(self, reply: Reply, tick: int) -> bool:
        """Tell whether the next frame of a reply is played at this tick. A reply begins, or goes on after a pause, with
        the first picture that is ready; then its sound does not wait for pictures, only for sound."""
        if not reply.has_sound:
            return False
        if self.error is not None:  # nobody draws any more, the voice goes on
            return True
        if reply.is_playing:
            return reply.position in reply.pictures or not reply.waits_for_sound(self.need)
        if not (reply.pictures or reply.is_drawn):
            return False
        reply.ready_tick = tick if reply.ready_tick is None else reply.ready_tick
        is_ahead = reply.has_ended or len(reply.sound) >= self._wanted(reply)
        return is_ahead or tick - reply.ready_tick >= self.options.margin

    def _wanted(self, reply: Reply) -> int:
        """Count the samples that shall wait: those that motion takes, and the margin."""
        return self.need + self.options.margin * reply.frame_samples

    def _hold(self, reply: Reply, tick: int) -> None:
        """Let a reply wait in idle motion, and end it where it gets no more sound."""
        if reply.is_playing:
            reply.is_playing = False
            self.start_idle(tick, self.shown.motion)
        if not reply.has_sound:  # else pictures are awaited
            reply.silent_ticks += 1
        if reply.silent_ticks > self.options.pause_s * FRAME_RATE_HZ:
            reply.has_ended = True

    def _finish(self, tick: int) -> None:
        """Report the replies that have been played when the frame of a tick is next."""
        while self.replies and self.replies[0].is_played:
            was_playing = self.replies[0].is_playing
            self._pending.append(self.replies.popleft().report())
            following = self.replies[0] if self.replies else None
            if was_playing and following is not None and 0 in following.pictures:
                following.is_playing = True
            elif was_playing and (self.transition is None or self.transition.start != tick):
                self.start_idle(tick, self.shown.motion)

    def report(self) -> LiveStats:
        """Return the counts so far."""
        with self.changed:
            return LiveStats(
                **self.counts,
                waiting_s=self._waiting / self.options.sample_rate,
                hear_ms=self._means["hear_ms"],
                draw_ms=self._means["draw_ms"],
                first_frame_ms=self.first_frame_ms,
            )

    def average(self, name: str, value: float) -> None:
        """Add to a running mean of the counts."""
        mean = self._means[name]
        self._means[name] = mean + (value - mean) / (8 if mean else 1)

    def _show(self, picture: Picture | None, frame: int | None = None) -> PictureState:
        """Show a picture, or the one before again; frame: of the reply that is played."""
        if picture is None:
            state = PictureState.REPEATED
            self._shown_age += 1
        else:
            self.shown, state = picture, picture.state
            self._shown_age = 0 if frame is None or picture.frame is None else frame - picture.frame
        self.counts[state.value] += 1
        return state
