"""Types of text-to-speech (TTS): a line of text, its sound, and the protocol of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kdtalker.core.arrays import Array

DEFAULT_VOICE = "en-us"

MAX_CHARS = 2000  # the longest text, about two minutes

MIN_SOUND_S = 0.1  # a shorter sound means that the voice cannot speak the text

VOICE_HELP = "a language of espeak-ng such as en-us, de or fr-fr (+f3: another person) or a voice of Kokoro"


@dataclass(frozen=True)
class Line:
    """Hold a text and the name of the voice that speaks it."""

    text: str
    voice: str = DEFAULT_VOICE


@dataclass(frozen=True)
class Sound:
    """Hold mono samples (N,), -1..1, and their rate."""

    samples: Array
    rate_hz: int


class TextToSpeech(Protocol):
    """Synthesise speech from text."""

    def voices(self) -> dict[str, str]:
        """List the voices by name, each with a label. Raises InputError where the engine is not installed."""
        ...

    def synthesise(self, line: Line) -> Sound:
        """Synthesise a line. Raises InputError where the engine or the voice is not installed."""
        ...
