"""Draw the pictures of speech and of idle life, ahead of what is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
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
RETRY = 0.9  # by which the cost of the mouth painter is thought to fall with each picture without it

Work = Callable[[], None]


class Drawing:
    """Draw pictures in the order in which they are due, one a step; where time is short, without the mouth painter,
    and not at all where they would be late."""

    def __init__(
        self, timeline: Timeline, renderer: Renderer[Any], portrait: EncodedPortrait[Any], idle: IdleLoop
    ) -> None:
        self._timeline, self._renderer, self._portrait, self._idle = timeline, renderer, portrait, idle
        self._loop = idle.loop  # as far as this session knows it
        self._painted_s = self._fast_s = 0.0  # cost of a picture, with the mouth painter and without: running means
        self._is_warm = False  # the first picture costs more

    def step(self) -> bool:
        """Draw a picture; returns False where all pictures are there."""
        with self._timeline.changed:
            self._begin_loop()
            work = self._choose_speech() or self._choose_idle()
        if work is None:
            return False
        work()
        return True

    def _begin_loop(self) -> None:
        """Go over to the loop of idle life once it is there."""
        timeline = self._timeline
        if self._loop is None and self._idle.loop is not None:
            self._loop = self._idle.loop
            if not timeline.is_playing:
                timeline.rest_from(timeline.tick, timeline.shown.motion)

    def _choose_speech(self) -> Work | None:
        """Choose the next picture of the replies in their order."""
        before: Reply | None = None
        waiting = 0
        for reply in self._timeline.replies:
            waiting += len(reply.pictures)
            if waiting >= AHEAD_PICTURES:
                return None
            self._skip_to(reply, reply.position)
            if not reply.is_drawn:
                return self._plan(reply, before)
            before = reply
        if before is not None and self._timeline.is_playing:
            self._prepare_rest(before)
        return None

    def _plan(self, reply: Reply, before: Reply | None) -> Work | None:
        """Plan the next picture of a reply; before: the reply before it, which is drawn but not yet played."""
        is_painted = True
        if reply.is_playing and reply.known(reply.drawn) is not None:
            is_painted, late = self._find_time(reply.drawn - reply.position)
            self._skip_to(reply, min(reply.drawn + late, reply.frames))
        frame = reply.drawn
        motion = reply.known(frame)
        if motion is None:
            return None
        is_guess = frame not in reply.motion
        if before is not None and frame == 0:
            reply.transition = None if before.last is None else Transition(before.last, frame)
        elif before is None and not reply.is_playing and not reply.pictures:
            reply.transition = Transition(self._rest_motion(self._timeline.tick), frame)
        elif reply.was_guess and not is_guess and reply.last is not None:
            reply.transition = Transition(reply.last, frame)
        if reply.transition is not None:
            motion = reply.transition.blend(motion, frame)
        reply.drawn, reply.last, reply.was_guess = frame + 1, motion, is_guess
        reply.motion.pop(frame, None)
        reply.guess.pop(frame, None)
        return partial(self._draw_speech, reply, frame, motion, is_painted)

    def _skip_to(self, reply: Reply, frame: int) -> None:
        """Drop the pictures of a reply before a frame."""
        for number in range(reply.drawn, frame):
            reply.motion.pop(number, None)
            reply.guess.pop(number, None)
        if frame > reply.drawn:
            self._timeline.count(dropped=frame - reply.drawn)
            reply.drawn = frame

    def _find_time(self, ticks: int) -> tuple[bool, int]:
        """Find out whether there is time to draw the picture that is due `ticks` after the next tick with the mouth
        painter; returns that, and how many pictures are too late to be drawn at all."""
        if not self._ticks_late(ticks, self._painted_s):
            return True, 0
        return False, self._ticks_late(ticks, self._fast_s or self._painted_s)

    def _ticks_late(self, ticks: int, cost_s: float) -> int:
        """Return by how many ticks a picture of that cost would be late that is due `ticks` after the next tick."""
        timeline = self._timeline
        if timeline.taken_s is None:
            return 0
        left_s = timeline.taken_s + (ticks + 1) * FRAME_S - timeline.clock()
        return max(0, math.ceil((cost_s - left_s) / FRAME_S))

    def _draw_speech(self, reply: Reply, frame: int, motion: Motion, is_painted: bool) -> None:
        image = self._paste(self._draw(motion, is_painted))
        picture = Picture(image, motion, PictureState.NEW if is_painted else PictureState.DEGRADED)
        with self._timeline.changed:
            if frame >= reply.position:
                reply.pictures[frame] = picture
            else:
                self._timeline.count(dropped=1)
            self._timeline.notify()

    def _prepare_rest(self, reply: Reply) -> None:
        """Plan idle life after the last reply, whose pictures are all drawn."""
        timeline = self._timeline
        start = timeline.tick + sum(each.frames - each.position for each in timeline.replies)
        if reply.last is not None and (timeline.transition is None or timeline.transition.start != start):
            timeline.rest_from(start, reply.last)

    def _rest_motion(self, tick: int) -> Motion:
        """Return the motion (T = 1) of idle life at a tick."""
        motion, transition = self._idle.motion(tick, self._loop), self._timeline.transition
        return motion if transition is None else transition.blend(motion, tick)

    def _choose_idle(self) -> Work | None:
        """Choose the next picture of idle life, where it is due soon."""
        timeline = self._timeline
        transition = timeline.transition
        start = timeline.tick
        if timeline.is_playing:
            if transition is None or transition.start <= start:
                return None
            start = transition.start
        ticks = (tick for tick in range(start, start + AHEAD_IDLE) if tick not in timeline.resting)
        tick = next(ticks, None)
        if tick is None:
            return None
        if not (self._loop is not None and self._idle.has(tick)):
            tick += self._ticks_late(tick - timeline.tick, self._painted_s)
            if tick in timeline.resting:
                return None
        is_loop = self._loop is not None and (transition is None or transition.is_over(tick))
        return partial(self._draw_idle, tick, self._rest_motion(tick), is_loop, transition)

    def _draw_idle(self, tick: int, motion: Motion, is_loop: bool, transition: Transition | None) -> None:
        face = self._idle.find(tick) if is_loop else None
        if face is None:
            face = self._draw(motion, True)
            if is_loop:
                self._idle.keep(tick, face)
        picture = Picture(self._paste(face), motion)
        timeline = self._timeline
        with timeline.changed:
            if timeline.transition is transition and tick >= timeline.tick:
                timeline.resting[tick] = picture
            timeline.notify()

    def _draw(self, motion: Motion, is_painted: bool) -> Image:
        clock, source = self._timeline.clock, self._portrait.source
        began_s = clock()
        faces = self._renderer.render(source, motion, paint_mouth=is_painted)
        (face,) = faces
        self._measure(clock() - began_s, is_painted)
        return face

    def _measure(self, cost_s: float, is_painted: bool) -> None:
        """Measure what a picture costs."""
        if not self._is_warm:
            self._is_warm = True
        elif is_painted:
            self._painted_s += (cost_s - self._painted_s) / (8 if self._painted_s else 1)
        else:
            self._fast_s += (cost_s - self._fast_s) / (8 if self._fast_s else 1)
            self._painted_s = max(self._fast_s, RETRY * self._painted_s)
        with self._timeline.changed:
            self._timeline.average(draw_ms=1000 * cost_s)

    def _paste(self, face: Image) -> Image:
        image = self._portrait.canvas.paste(face)
        image.flags.writeable = False
        return image
