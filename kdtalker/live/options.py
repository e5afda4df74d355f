"""Options of a live session."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from kdtalker.core.errors import InputError, quote
from kdtalker.core.options import WHOLE_WINDOWS, Options
from kdtalker.core.rates import FRAME_RATE_HZ

RATES_HZ = (8_000, 48_000)
SOURCES = ("agent", "microphone")
_RANGES = {"lookahead": (int, WHOLE_WINDOWS, 8), "margin": (int, 0, 25), "buffer_s": (float, 3, 3600),
           "pause_s": (float, 0, 3600)}  # fmt: skip


@dataclass(frozen=True)
class LiveOptions:
    """Hold every choice about a live session. Raises InputError for a value outside its range.

    options: of the performance. sample_rate: Hz of the sound in and out, a multiple of 25 from 8000 to 48000.
    lookahead: frames of sound that the motion model hears beyond a frame, 0..8, instead of that of `options`; -1: whole
    windows of some 3 to 4 s, for engines that cannot look ahead by frames. margin: frames of sound that a reply
    waits for where its sound comes no faster than it is spoken. buffer_s: most sound that may wait. pause_s: a reply
    that gets no sound for so long is ended. source: "agent" for speech of a program, which comes faster than it is
    spoken; "microphone" for a person's, which is played with the least delay: what a slow beginning or a gap has added
    is made up in silence.
    """

    options: Options = field(default_factory=Options)
    sample_rate: int = 16_000
    lookahead: int = 4
    margin: int = 2
    buffer_s: float = 120.0
    pause_s: float = 5.0
    source: str = SOURCES[0]

    def __post_init__(self) -> None:
        for name in ("sample_rate", "source", *_RANGES):
            check_live_option(name, getattr(self, name))

    @property
    def motion_options(self) -> Options:
        """Return the options of the motion stream."""
        return replace(self.options, lookahead=self.lookahead)

    @property
    def frame_samples(self) -> int:
        """Return the number of samples of a frame of 40 ms."""
        return self.sample_rate // FRAME_RATE_HZ


def check_live_option(name: str, value: Any) -> None:
    """Check the value of a field of LiveOptions, all but `options`. Raises InputError."""
    if name == "sample_rate":
        if type(value) is not int or value % FRAME_RATE_HZ or not RATES_HZ[0] <= value <= RATES_HZ[1]:
            raise InputError(
                f"The sample rate is {quote(value)}, wanted a multiple of {FRAME_RATE_HZ} from {RATES_HZ[0]} to "
                f"{RATES_HZ[1]} Hz; resample the sound."
            )
    elif name == "source":
        if value not in SOURCES:
            raise InputError(f"The source is {quote(value)}, wanted {' or '.join(SOURCES)}.")
    else:
        kind, least, most = _RANGES[name]
        if type(value) not in (int, kind) or not least <= value <= most:
            wanted = "a whole number" if kind is int else "a number"
            raise InputError(f"Live option '{name}' is {quote(value)}, wanted {wanted} from {least} to {most}.")
