"""Synthesise a text for a live session."""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import numpy as np
import soxr

from kdtalker.core.arrays import Array
from kdtalker.tts.line import DEFAULT_VOICE, Line
from kdtalker.tts.speak import speak


def synthesise(text: str, voice: str | None, rate_hz: int) -> Array:
    """Synthesise a text: float32 samples (N,) at rate_hz. Raises InputError as `kdtalker.tts.speak.speak`."""
    with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
        path = Path(folder) / "spoken.wav"
        speak(Line(text, voice or DEFAULT_VOICE), path)
        with wave.open(str(path)) as file:
            spoken = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
            return np.asarray(soxr.resample(spoken, file.getframerate(), rate_hz), np.float32)
