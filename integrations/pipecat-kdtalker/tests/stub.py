"""A live session without an engine: what is pushed is played frame by frame, by the promises of `LiveSession`."""

from collections import deque

import numpy as np

from kdtalker.live.frames import Activity, LiveFrame, PictureState, Played

WIDTH, HEIGHT = 8, 6


class StubFace:
    """Starts one StubSession; `delay` ticks go by before a reply begins."""

    def __init__(self, delay=3, broken=None):
        self.delay, self.broken, self.session = delay, broken, None

    def start(self, sample_rate):
        if self.broken:
            raise self.broken
        self.session = StubSession(sample_rate, self.delay)
        return self.session


class StubSession:
    """The picture's first pixel counts ticks. `fail_at`: tick whose `take` raises."""

    def __init__(self, sample_rate, delay):
        self.rate, self.frame_samples, self.delay = sample_rate, sample_rate // 25, delay
        self.tick = self.generation = self.segments = self.closed = 0
        self.replies, self.error, self.fail_at, self.played = deque(), None, None, []

    def push(self, samples):
        assert samples.dtype == np.float32 and samples.ndim == 1
        if not self.replies or self.replies[-1]["ended"]:
            self.replies.append({"segment": self.segments, "sound": [], "ended": False, "done": 0, "wait": self.delay})
            self.segments += 1
        self.replies[-1]["sound"].extend(samples)
        return self.replies[-1]["segment"]

    def end_segment(self):
        if self.replies:
            self.replies[-1]["ended"] = True

    def interrupt(self):
        reports = tuple(Played(reply["segment"], reply["done"], True) for reply in self.replies)
        self.replies.clear()
        self.generation += 1
        return reports

    def take(self):
        assert not self.closed
        if self.tick == self.fail_at:
            raise RuntimeError("no more pictures")
        tick, self.tick = self.tick, self.tick + 1
        sound, activity, segment, ended = np.zeros(self.frame_samples, np.float32), Activity.IDLE, None, []
        reply = self.replies[0] if self.replies else None
        if reply and reply["wait"]:
            reply["wait"] -= 1
        elif reply:
            activity = Activity.PAUSE
            if len(reply["sound"]) >= self.frame_samples or (reply["ended"] and reply["sound"]):
                part, reply["sound"] = reply["sound"][: self.frame_samples], reply["sound"][self.frame_samples :]
                sound[: len(part)], activity, segment = part, Activity.SPEECH, reply["segment"]
                reply["done"] += len(part)
                self.played.extend(part)
            if reply["ended"] and not reply["sound"]:
                ended = [Played(reply["segment"], reply["done"], False)]
                self.replies.popleft()
        picture = np.full((HEIGHT, WIDTH, 3), tick % 256, np.uint8)
        state = PictureState.NEW
        return LiveFrame(tick, picture, sound, activity, state, segment, self.generation, tuple(ended))

    def close(self):
        self.closed += 1
