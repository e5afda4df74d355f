"""Draw the pictures of speech and of idle motion, ahead of what is taken."""

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
from kdtalker.live.costs import DrawingCosts
from kdtalker.live.frames import PictureState
from kdtalker.live.idle import IdleLoop
from kdtalker.live.reply import LATE_FRAMES, Picture, Reply
from kdtalker.live.timeline import Timeline

AHEAD_PICTURES = 8  # pictures of speech that wait to be shown
AHEAD_IDLE = 3  # the same of idle motion

Work = Callable[[], None]


class Drawing:
    """Draw pictures in the order in which they are due, one a step; where time is short, without the mouth painter,
    and not at all where they would be late."""

    def __init__(
        self, timeline: Timeline, renderer: Renderer[Any], portrait: EncodedPortrait[Any], idle: IdleLoop
    ) -> None:
        self._timeline, self._renderer, self._portrait, self._idle = timeline, renderer, portrait, idle
        self._loop = idle.loop  # as far as this session knows it
        self._costs = DrawingCosts()

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
        """Go over to the loop of idle motion once it is there."""
        timeline = self._timeline
        if self._loop is None and self._idle.loop is not None:
            self._loop = self._idle.loop
            if not timeline.is_playing:
                timeline.start_idle(timeline.tick, timeline.shown.motion)

    def _choose_speech(self) -> Work | None:
        """Choose the next picture of the replies in their order."""
        before: Reply | None = None
        waiting = 0
        for reply in self._timeline.replies:
            waiting += len(reply.pictures)
            if waiting >= AHEAD_PICTURES:
                return None
            self._skip_to(reply, max(reply.position - LATE_FRAMES, min(reply.position, reply.newest)))
            if not reply.is_drawn:
                return self._plan(reply, before)
            before = reply
        if before is not None and self._timeline.is_playing:
            self._prepare_idle(before)
        return None

    def _plan(self, reply: Reply, before: Reply | None) -> Work | None:
        """Plan the next picture of a reply; before: the reply before it, which is drawn but not yet played."""
        is_painted = True
        if reply.is_playing and reply.known(reply.drawn) is not None:
            is_painted, late = self._costs.find_time(self._time_left(reply.drawn - reply.position))
            self._skip_to(reply, min(reply.drawn + late, max(reply.newest, reply.drawn)))
        frame = reply.drawn
        motion = reply.known(frame)
        if motion is None:
            return None
        is_guess = frame not in reply.motion
        if before is not None and frame == 0:
            reply.transition = None if before.last is None else Transition(before.last, frame)
        elif before is None and not reply.is_playing and not reply.pictures:
            reply.transition = Transition(self._idle_motion(self._timeline.tick), frame)
        elif reply.was_guess and not is_guess and reply.last is not None:
            reply.transition = Transition(reply.last, frame)
        if reply.transition is not None:
            motion = reply.transition.blend(motion, frame)
        reply.forget(frame + 1)
        reply.last, reply.was_guess = motion, is_guess
        return partial(self._draw_speech, reply, frame, motion, is_painted)

    def _skip_to(self, reply: Reply, frame: int) -> None:
        """Drop the pictures of a reply before a frame."""
        if frame > reply.drawn:
            self._timeline.counts["dropped"] += frame - reply.drawn
            reply.forget(frame)

    def _time_left(self, ticks: int) -> float:
        """Return the time in s until the frame is taken that comes `ticks` after the next."""
        timeline = self._timeline
        if timeline.taken_s is None:
            return math.inf
        return timeline.taken_s + (ticks + 1) / FRAME_RATE_HZ - timeline.clock()

    def _draw_speech(self, reply: Reply, frame: int, motion: Motion, is_painted: bool) -> None:
        picture = replace(self._draw(motion, is_painted)[1], frame=frame)
        with self._timeline.changed:
            if frame >= reply.position:
                reply.pictures[frame] = picture
            elif frame >= reply.position - LATE_FRAMES:
                reply.late = replace(picture, state=PictureState.DEGRADED)
            else:
                self._timeline.counts["dropped"] += 1
            self._timeline.notify()

    def _prepare_idle(self, reply: Reply) -> None:
        """Plan idle motion after the last reply, whose pictures are all drawn."""
        timeline = self._timeline
        start = timeline.tick + sum(each.frames - each.position for each in timeline.replies)
        if reply.last is not None and (timeline.transition is None or timeline.transition.start != start):
            timeline.start_idle(start, reply.last)

    def _idle_motion(self, tick: int) -> Motion:
        """Return the motion (T = 1) of idle motion at a tick."""
        motion, transition = self._idle.motion(tick, self._loop), self._timeline.transition
        return motion if transition is None else transition.blend(motion, tick)

    def _choose_idle(self) -> Work | None:
        """Choose the next picture of idle motion, where it is due soon."""
        timeline, transition = self._timeline, self._timeline.transition
        start = timeline.tick
        if timeline.is_playing:
            if transition is None or transition.start <= start:
                return None
            start = transition.start
        tick = next((tick for tick in range(start, start + AHEAD_IDLE) if tick not in timeline.idle_pictures), None)
        if tick is None:
            return None
        is_loop = self._loop is not None and (transition is None or transition.is_over(tick))
        is_painted, left_s = True, self._time_left(tick - timeline.tick)
        if not is_loop:
            is_painted, late = self._costs.find_time(left_s)
            tick += late
        elif not self._idle.has(tick):
            tick += self._costs.late_pictures(left_s)
        if tick in timeline.idle_pictures:
            return None
        return partial(self._draw_idle, tick, self._idle_motion(tick), is_painted, is_loop, transition)

    def _draw_idle(
        self, tick: int, motion: Motion, is_painted: bool, is_loop: bool, transition: Transition | None
    ) -> None:
        face = self._idle.find(tick) if is_loop else None
        if face is not None:
            picture = Picture(self._paste(face), motion)
        else:
            face, picture = self._draw(motion, is_painted)
            if is_loop:
                self._idle.keep(tick, face)
        timeline = self._timeline
        with timeline.changed:
            if timeline.transition is transition and tick >= timeline.tick:
                timeline.idle_pictures[tick] = picture
            timeline.notify()

    def _draw(self, motion: Motion, is_painted: bool) -> tuple[Image, Picture]:
        """Draw a face (S, S, 3); returns it with the picture that it becomes."""
        clock, began_s = self._timeline.clock, self._timeline.clock()
        (face,) = self._renderer.render(self._portrait.source, motion, paint_mouth=is_painted)
        image = self._paste(face)
        self._costs.add(clock() - began_s, is_painted)
        with self._timeline.changed:
            self._timeline.average("draw_ms", 1000 * (clock() - began_s))
        return face, Picture(image, motion, PictureState.NEW if is_painted else PictureState.DEGRADED)

    def _paste(self, face: Image) -> Image:
        image = self._portrait.canvas.paste(face)
        image.flags.writeable = False
        return image
