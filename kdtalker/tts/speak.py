"""Speak a line of text with the engine that has the voice."""

from __future__ import annotations

import re
import tempfile
import wave
from pathlib import Path

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.pcm import decode_pcm, encode_wav
from kdtalker.tts.line import DEFAULT_VOICE, MAX_CHARS, MIN_SOUND_S, Line, TextToSpeech
from kdtalker.weights.table import KOKORO


def load_speaker(voice: str) -> TextToSpeech:
    """Load the engine of a voice: Kokoro's are named by language and sex (`af_heart`), all others are espeak-ng's."""
    if re.fullmatch(r"[a-z][fm]_\w+", voice):
        from kdtalker.tts.kokoro import kokoro

        return kokoro()
    from kdtalker.tts.espeak import espeak

    return espeak()


def list_voices() -> str:
    """List all voices, one a line: its name for --voice and a label. Raises InputError without the extra [tts]."""
    from kdtalker.tts.espeak import espeak
    from kdtalker.tts.kokoro import installed_voices

    human = installed_voices()
    lines = [f"{name:12} {label}" for name, label in (*espeak().voices().items(), *human.items())]
    lines.append("Add +f1 to +f5 or +m1 to +m8 to a voice of espeak-ng for another person, for example en-us+f3.")
    if not human:
        lines.append(f"Kokoro's voices sound like a person: `kdtalker weights get {' '.join(KOKORO)}` fetches them.")
    return "\n".join(lines) + "\n"


def speak(line: Line, path: Path) -> None:
    """Synthesise a line to a WAV file. Raises InputError for no or too much text, or as `TextToSpeech.synthesise`."""
    text = " ".join(line.text.replace("\0", " ").split())
    if any("\ud800" <= letter <= "\udfff" for letter in text + line.voice):
        raise InputError("The text holds bytes that are not UTF-8, wanted text in UTF-8.")
    if not any(letter.isalnum() for letter in text):
        raise InputError("There is no text to say yet, wanted at least a word.")
    if len(text) > MAX_CHARS:
        raise InputError(f"This text has {len(text)} characters, wanted at most {MAX_CHARS}; say less at a time.")
    sound = load_speaker(line.voice).synthesise(Line(text, line.voice))
    if len(sound.samples) < MIN_SOUND_S * sound.rate_hz or not sound.samples.any():
        raise InputError(f"The voice '{line.voice}' can say nothing of this text; choose one of its language.")
    path.write_bytes(encode_wav(sound.samples, sound.rate_hz))


def synthesise_text(text: str, voice: str | None, rate_hz: int) -> Array:
    """Synthesise a text: float32 samples (N,) at rate_hz. Raises InputError as `speak`."""
    import soxr

    with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
        path = Path(folder) / "spoken.wav"
        speak(Line(text, voice or DEFAULT_VOICE), path)
        with wave.open(str(path)) as file:
            spoken = decode_pcm(file.readframes(file.getnframes()))
            return np.asarray(soxr.resample(spoken, file.getframerate(), rate_hz), np.float32)
