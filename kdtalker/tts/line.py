"""Text in, sound out: what the portrait says where nobody has recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kdtalker.core.arrays import Array

DEFAULT_VOICE = "en-us"

LONGEST_TEXT = 2000  # characters: about two minutes

LEAST_SOUND_S = 0.1

SAID_OF_VOICES = "a language of espeak-ng such as en-us, de or fr-fr (+f3: another person) or a voice of Kokoro"


@dataclass(frozen=True)
class Line:
    """Words and the name of the voice that says them."""

    text: str
    voice: str = DEFAULT_VOICE


@dataclass(frozen=True)
class Sound:
    """Mono samples (N,), -1..1."""

    samples: Array
    rate_hz: int


class Speaker(Protocol):
    """What turns text into sound; `kdtalker.pipeline.Speech` then turns that into motion."""

    def voices(self) -> dict[str, str]:
        """The voices by name, each with a label for people. Raises InputError where the engine is not there."""
        ...

    def say(self, line: Line) -> Sound:
        """Raises InputError where the engine or the voice is not there."""
        ...
