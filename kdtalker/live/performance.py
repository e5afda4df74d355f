"""Performed motion (what is drawn) of pushed samples at 16 kHz; a copy of a stream goes on by itself."""

from __future__ import annotations

import copy
from typing import Any

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import EncodedPortrait, Engine
from kdtalker.core.rates import SAMPLES_PER_FRAME
from kdtalker.session import Session

WINDOW_FRAMES = 76  # sound from a frame's first sample on that its motion takes: a window and the encoder's look-ahead


class PerformanceStream:
    """Generate performed motion from samples at 16 kHz."""

    def __init__(self, engine: Engine[Any], portrait: EncodedPortrait[Any], options: Options) -> None:
        self._session = Session(engine, portrait, options)
        self._stream = self._session._start()

    @staticmethod
    def need(engine: Engine[Any], options: Options) -> int:
        """Return how many samples from a frame's first on its motion takes."""
        return WINDOW_FRAMES * SAMPLES_PER_FRAME

    def advance(self, samples: Array) -> Motion:
        """Take samples (N,); return the motion of the frames that became final."""
        return self._performed(*self._stream.advance(samples))

    def end(self) -> Motion:
        """End the sound; return the motion of all frames still owed."""
        return self._performed(*self._stream.end())

    def _performed(self, motion: Motion, prosody: Any) -> Motion:
        return self._session._perform(motion, prosody) if len(motion) else motion

    def copy(self) -> PerformanceStream:
        """Return a stream that has heard the same."""
        twin = copy.copy(self)
        twin._session, twin._stream = copy.copy(self._session), copy.copy(self._stream)
        return twin
