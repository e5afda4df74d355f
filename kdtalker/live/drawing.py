"""Draw the pictures of speech and of idle life, ahead of what is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from kdtalker.core.arrays import Image
from kdtalker.core.motion import Motion
from kdtalker.core.protocols import EncodedPortrait, Renderer
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.blend import Transition
from kdtalker.live.frames import PictureState
from kdtalker.live.idle import IdleLoop
from kdtalker.live.reply import Picture, Reply
from kdtalker.live.timeline import Timeline

AHEAD_PICTURES = 8  # pictures of speech that wait to be shown
AHEAD_IDLE = 3  # the same of idle life
FRAME_S = 1 / FRAME_RATE_HZ


class Drawing:
    """Draw pictures in the order in which they are due, one a step; where time is short, without the mouth painter,
    and not at all where they would be late."""

    def __init__(
        self, timeline: Timeline, renderer: Renderer[Any], portrait: EncodedPortrait[Any], idle: IdleLoop
    ) -> None:
        self._timeline, self._renderer, self._portrait, self._idle = timeline, renderer, portrait, idle
        self._cost_s = {True: 0.0, False: 0.0}  # running means, with the mouth painter and without

    def step(self) -> bool:
        """Draw a picture; returns False where all pictures are there."""
        with self._timeline.changed:
            work = self._choose_speech() or self._choose_idle()
        if work is None:
            return False
        work()
        return True

    def _choose_speech(self) -> Callable[[], None] | None:
        """Choose the next picture of the replies in their order."""
        timeline = self._timeline
        before: Reply | None = None
        waiting = 0
        for reply in timeline.replies:
            waiting += len(reply.pictures)
            if waiting >= AHEAD_PICTURES:
                return None
            self._skip_to(reply, reply.position)
            motion = reply.known(reply.drawn)
            if motion is not None:
                return self._plan(reply, before)
            if not reply.is_drawn:
                return None
            before = reply
        if before is not None and timeline.is_playing:
            self._prepare_rest(before)
        return None

    def _plan(self, reply: Reply, before: Reply | None) -> Callable[[], None] | None:
        """Plan the next picture of a reply; before: the reply before it, if that is not yet played."""
        timeline, is_painted = self._timeline, True
        if reply.is_playing:
            is_painted, late = self._find_time(reply.drawn - reply.position)
            self._skip_to(reply, reply.drawn + late)
        frame = reply.drawn
        motion = reply.known(frame)
        if motion is None:
            return None
        if before is not None and frame == 0:
            if before.last is not None:
                reply.transition = Transition(before.last, frame)
        elif not reply.is_playing and not reply.pictures and before is None:
            reply.transition = Transition(self._rest_motion(timeline.tick), frame)
        elif frame in reply.motion and frame - 1 in reply.guess and reply.last is not None:
            reply.transition = Transition(reply.last, frame)
        if reply.transition is not None:
            motion = reply.transition.blend(motion, frame)
        reply.drawn, reply.last = frame + 1, motion
        return partial(self._draw_speech, reply, frame, motion, is_painted)

    def _skip_to(self, reply: Reply, frame: int) -> None:
        """Drop the pictures of a reply before a frame."""
        if frame > reply.drawn:
            self._timeline.stats = replace(
                self._timeline.stats, dropped=self._timeline.stats.dropped + frame - reply.drawn
            )
            for number in range(reply.drawn, frame):
                reply.motion.pop(number, None)
            reply.drawn = frame

    def _find_time(self, ticks: int) -> tuple[bool, int]:
        """Find out whether there is time to draw the picture that is due `ticks` after the next tick with the mouth
        painter; returns that, and how many pictures are too late to be drawn at all."""
        timeline = self._timeline
        if timeline.taken_s is None:
            return True, 0
        left_s = timeline.taken_s + (ticks + 1) * FRAME_S - timeline.clock()
        if left_s >= self._cost_s[True]:
            return True, 0
        fast_s = self._cost_s[False] or self._cost_s[True]
        return False, max(0, math.ceil((fast_s - left_s) / FRAME_S))

    def _draw_speech(self, reply: Reply, frame: int, motion: Motion, is_painted: bool) -> None:
        face = self._draw(motion, is_painted)
        state = PictureState.NEW if is_painted else PictureState.DEGRADED
        picture = Picture(self._paste(face), motion, state)
        timeline = self._timeline
        with timeline.changed:
            if frame >= reply.position:
                reply.pictures[frame] = picture
            else:
                timeline.stats = replace(timeline.stats, dropped=timeline.stats.dropped + 1)
            timeline.notify()

    def _prepare_rest(self, reply: Reply) -> None:
        """Plan idle life after the last reply, whose pictures are all drawn."""
        timeline = self._timeline
        left = sum(each.frames - each.position for each in timeline.replies)
        start = timeline.tick + left
        if reply.last is not None and (timeline.transition is None or timeline.transition.start != start):
            timeline.rest_from(start, reply.last)

    def _rest_motion(self, tick: int) -> Motion:
        """Return the motion (T = 1) of idle life at a tick."""
        motion, transition = self._idle.motion(tick), self._timeline.transition
        return motion if transition is None else transition.blend(motion, tick)

    def _choose_idle(self) -> Callable[[], None] | None:
        """Choose the next picture of idle life, where it is due soon."""
        timeline = self._timeline
        start = timeline.tick
        if timeline.is_playing:
            if timeline.transition is None or timeline.transition.start <= timeline.tick:
                return None
            start = timeline.transition.start
        for tick in range(start, start + AHEAD_IDLE):
            if tick not in timeline.resting:
                return partial(self._draw_idle, tick, timeline.transition)
        return None

    def _draw_idle(self, tick: int, transition: Transition | None) -> None:
        timeline = self._timeline
        motion = self._idle.motion(tick)
        is_loop = transition is None or transition.is_over(tick)
        if transition is not None:
            motion = transition.blend(motion, tick)
        image = self._idle.find(tick) if is_loop else None
        if image is None:
            face = self._draw(motion, True)
            if is_loop:
                self._idle.keep(tick, face)
            image = self._paste(face)
        with timeline.changed:
            if timeline.transition is transition and tick >= timeline.tick:
                timeline.resting[tick] = Picture(image, motion)
            timeline.notify()

    def _draw(self, motion: Motion, is_painted: bool) -> Image:
        began_s = self._timeline.clock()
        options = {} if is_painted else {"paint_mouth": False}
        (face,) = self._renderer.render(self._portrait.source, motion, **options)
        cost_s = self._timeline.clock() - began_s
        mean_s = self._cost_s[is_painted]
        self._cost_s[is_painted] = mean_s + (cost_s - mean_s) / (8 if mean_s else 1)
        return face

    def _paste(self, face: Image) -> Image:
        image = self._portrait.canvas.paste(face)
        image.flags.writeable = False
        return image
