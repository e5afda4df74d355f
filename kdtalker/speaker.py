"""Text in, sound out: what the portrait says where nobody has recorded it."""

from __future__ import annotations

import re
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kdtalker.errors import InputError
from kdtalker.motion import Array
from kdtalker.weights import KOKORO

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


def speaker_of(voice: str) -> Speaker:
    """Kokoro's voices are called after language and sex (`af_heart`), all others are espeak-ng's."""
    if re.fullmatch(r"[a-z][fm]_\w+", voice):
        from kdtalker.kokoro import kokoro

        return kokoro()
    from kdtalker.espeak import espeak

    return espeak()


def list_voices() -> str:
    """List all voices, one a line: its name for --voice and a label. Raises InputError without the extra [tts]."""
    from kdtalker.espeak import espeak
    from kdtalker.kokoro import voices_here

    human = voices_here()
    lines = [f"{name:12} {label}" for name, label in (*espeak().voices().items(), *human.items())]
    lines.append("Add +f1 to +f5 or +m1 to +m8 to a voice of espeak-ng for another person, for example en-us+f3.")
    if not human:
        lines.append(f"Kokoro's voices sound like a person: `kdtalker weights get {' '.join(KOKORO)}` fetches them.")
    return "\n".join(lines) + "\n"


def speak(line: Line, path: Path) -> None:
    """Write the spoken line as a WAV file. Raises InputError for no or too much text, or as `Speaker.say` does."""
    text = " ".join(line.text.replace("\0", " ").split())
    if any("\ud800" <= letter <= "\udfff" for letter in text + line.voice):
        raise InputError("The text holds bytes that are not UTF-8, wanted text in UTF-8.")
    if not any(letter.isalnum() for letter in text):
        raise InputError("There is no text to say yet, wanted at least a word.")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"This text has {len(text)} characters, wanted at most {LONGEST_TEXT}; say less at a time.")
    sound = speaker_of(line.voice).say(Line(text, line.voice))
    if len(sound.samples) < LEAST_SOUND_S * sound.rate_hz or not sound.samples.any():
        raise InputError(f"The voice '{line.voice}' can say nothing of this text; choose one of its language.")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sound.rate_hz, 0, "NONE", ""))
        file.writeframes(np.rint(sound.samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
