"""A live session without an engine: what is pushed is played frame by frame, by the promises of `LiveSession`."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from kdtalker.core.errors import InputError
from kdtalker.live.frames import Activity, LiveFrame, PictureState, Played
from kdtalker.live.timeline import MOST_REPLIES

WIDTH, HEIGHT = 8, 6


class StubFace:
    """Starts one StubSession; `delay` ticks go by before a reply begins; at most buffer_s of sound may wait."""

    size = (WIDTH, HEIGHT)

    def __init__(self, delay=3, broken=None, buffer_s=120.0):
        self.delay, self.broken, self.buffer_s, self.session = delay, broken, buffer_s, None

    def start(self, sample_rate):
        if self.broken:
            raise self.broken
        self.session = StubSession(sample_rate, self.delay, self.buffer_s)
        return self.session


@dataclass
class StubReply:
    """What was pushed and not yet played of a reply, and how many samples were."""

    segment: int
    wait: int
    sound: list = field(default_factory=list)
    ended: bool = False
    done: int = 0

    def read(self, samples):
        part, self.sound = self.sound[:samples], self.sound[samples:]
        self.done += len(part)
        return part


class StubSession:
    """The picture's first pixel counts ticks. `fail_at`: tick whose `take` raises; `skip_at`: positions in a reply at
    which a frame is skipped, as frames of a microphone are."""

    def __init__(self, sample_rate, delay, buffer_s):
        self.rate, self.frame_samples, self.delay = sample_rate, sample_rate // 25, delay
        self.most = buffer_s * sample_rate
        self.tick = self.generation = self.segments = self.closed = 0
        self.replies, self.error, self.fail_at, self.skip_at, self.played = deque(), None, None, (), []

    def push(self, samples):
        self.check_open()
        assert samples.dtype == np.float32 and samples.ndim == 1
        if len(samples) + sum(len(reply.sound) for reply in self.replies) > self.most:
            raise InputError("Too much sound waits.")
        if not self.replies or self.replies[-1].ended:
            if not len(samples):
                return self.segments
            if len(self.replies) >= MOST_REPLIES:
                raise InputError("Too many replies wait.")
            self.replies.append(StubReply(self.segments, self.delay))
            self.segments += 1
        self.replies[-1].sound.extend(samples)
        return self.replies[-1].segment

    def end_segment(self):
        self.check_open()
        if self.replies:
            self.replies[-1].ended = True

    def interrupt(self):
        self.check_open()
        reports = tuple(Played(reply.segment, reply.done, True) for reply in self.replies)
        self.replies.clear()
        self.generation += 1
        return reports

    def take(self):
        self.check_open()
        if self.tick == self.fail_at:
            raise RuntimeError("no more pictures")
        tick, self.tick = self.tick, self.tick + 1
        sound, activity, segment, position, ended = np.zeros(self.frame_samples, np.float32), Activity.IDLE, None, 0, []
        reply = self.replies[0] if self.replies else None
        if reply and reply.wait:
            reply.wait -= 1
        elif reply:
            activity = Activity.PAUSE
            if reply.done in self.skip_at and len(reply.sound) > self.frame_samples:
                reply.read(self.frame_samples)
            if len(reply.sound) >= self.frame_samples or (reply.ended and reply.sound):
                position, segment, activity = reply.done, reply.segment, Activity.SPEECH
                part = reply.read(self.frame_samples)
                sound[: len(part)] = part
                self.played.extend(part)
            if reply.ended and not reply.sound:
                ended = [Played(reply.segment, reply.done, False)]
                self.replies.popleft()
        picture = np.full((HEIGHT, WIDTH, 3), tick % 256, np.uint8)
        picture.flags.writeable = False
        state = PictureState.NEW
        return LiveFrame(tick, picture, sound, activity, state, segment, self.generation, tuple(ended), position)

    def close(self):
        self.closed += 1

    def check_open(self):
        if self.closed:
            raise InputError("This live session was closed.")
