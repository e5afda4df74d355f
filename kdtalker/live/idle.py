"""Idle motion: a loop of motion without speech, drawn once and kept compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np

from kdtalker.core.arrays import Image, smoothstep
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import EncodedPortrait, Engine, Prosody
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.edits.perform import add_procedural_motion
from kdtalker.live.hearing import MotionFeed
from kdtalker.media.picture import decode_jpeg, encode_jpeg

LOOP_FRAMES = 10 * FRAME_RATE_HZ
SEAM_FRAMES = FRAME_RATE_HZ  # the end of the loop fades into its beginning
SETTLE_FRAMES = 2 * FRAME_RATE_HZ  # the motion that comes first leaves the source image, it is no part of the loop
SEARCH_FRAMES = FRAME_RATE_HZ  # the loop begins where its seam fits best


class IdleLoop:
    """Hold the idle motion of one portrait; any number of sessions may share it."""

    def __init__(self, engine: Engine[Any], portrait: EncodedPortrait[Any], options: Options) -> None:
        self._engine, self._portrait, self._options = engine, portrait, options
        self._faces: dict[int, bytes] = {}
        self._lock = Lock()
        self._making: Iterator[Motion | None] | None = None
        self.loop: Motion | None = None

    def make(self, start: Callable[[], MotionFeed]) -> bool:
        """Generate a second of the loop's motion; returns False where the loop is complete, or another session is at
        it."""
        if self.loop is not None or not self._lock.acquire(blocking=False):
            return False
        try:
            self._making = self._making or _generate(start())
            self.loop = next(self._making)
            return True
        except BaseException:
            self._making = None  # a generator that has failed gives no more; the next call begins anew
            raise
        finally:
            self._lock.release()

    def motion(self, tick: int, loop: Motion | None) -> Motion:
        """Return the idle motion (T = 1) of a tick; before the loop is there, blinks, gaze and breath alone."""
        if loop is not None:
            frame = tick % len(loop)
            return loop[frame : frame + 1]
        rest, model = self._portrait.rest, self._engine.renderer.expression_model
        silence = Prosody(np.zeros(1, np.float32), np.ones(1, np.float32), np.zeros(1, np.float32))
        return add_procedural_motion(
            rest, self._portrait.source, model, self._options, frame=tick % LOOP_FRAMES, prosody=silence
        )

    def has(self, tick: int) -> bool:
        """Tell whether the face of a tick is kept."""
        return tick % LOOP_FRAMES in self._faces

    def find(self, tick: int) -> Image | None:
        """Return the face (S, S, 3) of a tick, where it was kept."""
        kept = self._faces.get(tick % LOOP_FRAMES)
        return None if kept is None else decode_jpeg(kept)

    def keep(self, tick: int, face: Image) -> None:
        """Keep a face (S, S, 3) that was drawn with the loop's motion of a tick."""
        self._faces[tick % LOOP_FRAMES] = encode_jpeg(face)


def _generate(feed: MotionFeed) -> Iterator[Motion | None]:
    """Yield None until the loop is generated, then the loop."""
    wanted = SETTLE_FRAMES + SEARCH_FRAMES + LOOP_FRAMES + SEAM_FRAMES
    motion: list[Motion] = []
    while sum(map(len, motion)) < wanted:
        motion.append(feed.push(np.zeros(SAMPLE_RATE_HZ, np.float32)))
        yield None
    yield close_loop(Motion.concatenate(motion)[SETTLE_FRAMES:wanted])


def close_loop(motion: Motion) -> Motion:
    """Make a loop of LOOP_FRAMES whose end leads to its beginning, from motion that is longer by SEARCH_FRAMES +
    SEAM_FRAMES: it begins where the two ends of the seam are most alike."""
    features = np.concatenate(
        [motion.vector() / np.maximum(motion.vector().std(0), 1e-6), motion.gaze / 5, 3 * motion.breath], axis=1
    )
    apart = ((features[LOOP_FRAMES:] - features[:-LOOP_FRAMES]) ** 2).sum(1)
    begin = int(np.argmin(np.convolve(apart, np.ones(SEAM_FRAMES), "valid")[:SEARCH_FRAMES]))
    head = motion[begin : begin + LOOP_FRAMES]
    tail = motion[begin + LOOP_FRAMES : begin + LOOP_FRAMES + SEAM_FRAMES]
    share = np.ones(LOOP_FRAMES, np.float32)
    share[:SEAM_FRAMES] = smoothstep(np.arange(SEAM_FRAMES) / SEAM_FRAMES)
    values = {}
    for name in ("scale", "pose", "shift", "expression", "gaze", "breath"):
        value = getattr(head, name).copy()
        weight = share[:SEAM_FRAMES].reshape(-1, *[1] * (value.ndim - 1))
        value[:SEAM_FRAMES] = weight * value[:SEAM_FRAMES] + (1 - weight) * getattr(tail, name)
        values[name] = value
    return replace(head, **values)
