"""A live session on a fake clock: the mouth opens by loudness, its opening is the lightness of a picture."""

from copy import copy
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import toy

from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.pipeline import TalkingPortraitPipeline

FRAME_S = 0.04
LOOKAHEAD = 4
LOUD, LIGHT, MIDDLE = 4.0, 100.0, 60  # mouth opening by loudness; levels by opening, and of a shut mouth


class LoudFeed:
    """Performed motion: lips part by the loudness of a frame and of the one that is heard last, LOOKAHEAD frames later;
    the head turns to and fro once in 3.4 s, the chest rises once in 4 s."""

    clock, hear_s = None, 0.0  # seconds on the fake clock for a second of sound

    def __init__(self, portrait, options):
        self.rest, self.pending, self.loudness, self.given = portrait.rest, np.zeros(0, np.float32), [], 0

    def push(self, samples):
        if self.clock:
            self.clock.advance(self.hear_s * len(samples) / 16_000)
        pending = np.concatenate([self.pending, samples])
        whole = len(pending) // 640 * 640
        self.pending = pending[whole:]
        self.loudness = [*self.loudness, *np.abs(pending[:whole].reshape(-1, 640)).mean(1)]
        return self._final(max(0, len(self.loudness) - LOOKAHEAD))

    def flush(self):
        last = self.push(np.zeros(-len(self.pending) % 640, np.float32))
        self.loudness = [*self.loudness, *[0.0] * LOOKAHEAD]
        return Motion.concatenate([last, self._final(len(self.loudness) - LOOKAHEAD)])

    def _final(self, frames):
        loudness, self.loudness = self.loudness, self.loudness[frames:]
        vector = np.repeat(self.rest.vector(), frames, axis=0)
        numbers = self.given + np.arange(frames)
        vector[:, 1] += 3 * np.sin(2 * np.pi * numbers / 85)
        expression = vector[:, 7:].reshape(-1, KEYPOINTS, 3)
        expression[:, 4, 1] += [LOUD * (loudness[i] + loudness[i + LOOKAHEAD]) / 2 for i in range(frames)]
        self.given += frames
        breath = (0.5 - 0.5 * np.cos(2 * np.pi * numbers / 100)).astype(np.float32)[:, None]
        return replace(Motion.from_vector(vector, "mesh"), breath=breath)

    def copy(self):
        return copy(self)


class LevelRenderer(toy.ToyRenderer):
    """Lightness is the opening of the mouth, columns move with the head, the last rows are lighter with the breath.
    costs_s: seconds on the fake clock for a picture, with the mouth painter and without."""

    def __init__(self, clock, costs_s=(0.0, 0.0)):
        self.clock, self.costs_s, self.drawn = clock, costs_s, 0

    def encode_source(self, face):
        rest = np.zeros((1, MOTION_WIDTH), np.float32)
        rest[0, 0] = 1
        return toy.ToySource(face, np.zeros((KEYPOINTS, 3), np.float32), Motion.from_vector(rest, "mesh"), rest_shut())

    def render(self, source, motion, *, paint_mouth=True):
        for frame in range(len(motion)):
            self.drawn += 1
            self.clock.advance(self.costs_s[0 if paint_mouth else 1])
            face = np.full((64, 64, 3), MIDDLE, np.uint8)
            face[:] = np.clip(MIDDLE + LIGHT * opening(motion)[frame], 0, 255)
            face[32:48] = np.clip(128 + 20 * motion.pose[frame, 0], 0, 255)
            face[48:] = np.clip(60 + 150 * motion.breath[frame, 0], 0, 255)
            yield face


def rest_shut():
    """Blinks move keypoint 19."""
    return toy._offset(19)


def opening(motion):
    """The gap (T,) between the lips."""
    return motion.expression[:, 4, 1] - motion.expression[:, 3, 1]


class FakeClock:
    """Time moves where it is advanced; every 40 ms a frame is taken."""

    def __init__(self):
        self.now, self.next, self.tick = 0.0, FRAME_S, None

    def __call__(self):
        return self.now

    def advance(self, seconds):
        end = self.now + seconds
        while self.tick is not None and self.next <= end + 1e-9:
            self.now, self.next = self.next, self.next + FRAME_S
            self.tick()
        self.now = max(self.now, end)


class Studio:
    """A session over that feed, its clock, all frames that were taken, and the motion that each of them shows."""

    def __init__(self, costs_s=(0.0, 0.0), hear_s=0.0, engine=None, idle=None, keep=True, **options):
        """costs_s, hear_s: seconds on the fake clock for a picture, with the mouth painter and without, and for a
        second of sound."""
        self.clock, self.hear_s = FakeClock(), 0.0
        self.renderer = LevelRenderer(self.clock)
        self.engine = engine or toy.ToyEngine(self.renderer)
        self.pipeline = toy.pipeline(self.engine)
        self.portrait = self.pipeline.portrait(toy.picture(), crop=True)
        with (
            patch.object(TalkingPortraitPipeline, "start_motion", self.start_feed),
            patch("kdtalker.live.session.needed_frames", lambda *inputs: 1 + LOOKAHEAD),
        ):
            self.session = LiveSession(
                self.pipeline, self.portrait, LiveOptions(**options), clock=self.clock, threads=False, idle=idle
            )
        self.rate = options.get("sample_rate", 16_000)
        self.frames, self.motions, self.keep = [], [], keep
        self.events = {}  # by tick: called before the frame of the tick is taken
        while self.session.work():
            pass
        self.renderer.costs_s, self.hear_s = costs_s, hear_s
        self.clock.tick = self.take
        self.taken = 0

    def start_feed(self, portrait, options):
        feed = LoudFeed(portrait, options)
        feed.clock, feed.hear_s = self.clock, self.hear_s
        return feed

    def take(self):
        for event in self.events.pop(self.taken, ()):
            event()
        frame = self.session.take()
        self.taken += 1
        if self.keep:
            self.frames.append(frame)
            self.motions.append(self.session._timeline.shown.motion)
        return frame

    def at(self, tick, event):
        self.events.setdefault(tick, []).append(event)

    def run(self, frames):
        """Let so many frames be taken, while the session works as fast as its costs allow."""
        end = self.taken + frames
        while self.taken < end:
            if not self.session.work():
                self.clock.advance(self.clock.next - self.clock.now)
        return self.frames[-frames:]

    def speech(self, segment=None):
        """The sound of a reply, as it was taken."""
        taken = [frame.sound for frame in self.frames if frame.segment is not None and segment in (None, frame.segment)]
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)

    def played(self):
        return [played for frame in self.frames for played in frame.ended]

    def openings(self):
        return np.array([opening(motion)[0] for motion in self.motions])


def voice(seconds, rate=16_000, seed=0):
    """Noise that swells four times a second and is never silent."""
    time_s = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).uniform(-1, 1, len(time_s))
    return (noise * (0.3 + 0.2 * np.sin(8 * np.pi * time_s))).astype(np.float32)
