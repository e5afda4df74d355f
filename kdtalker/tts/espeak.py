"""Formant TTS by espeak-ng in some 130 languages, through ctypes over the library in a wheel.

Its interface is that of `espeak-ng/speak_lib.h`, version 1.52. Every line is spoken by a process of its own,
with the text on stdin and 16-bit samples on stdout: the library keeps state from line
to line, by which the same text would sound otherwise the next time, and whatever a text does to it stays there.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from functools import cache
from typing import Any

from kdtalker.core.errors import InputError, OutputError, did_you_mean
from kdtalker.core.pcm import decode_pcm
from kdtalker.tts.line import Line, Sound

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000  # espeak_AUDIO_OUTPUT, espeakINITIALIZE_
_RATE, _WORDS_A_MINUTE = 1, 150  # espeakRATE; its default of 175 is hasty beside people who read aloud
_UTF8 = 1  # espeakCHARS_UTF8; neither espeakSSML nor espeakPHONEMES: text is only text
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_NAME = re.compile(r"([\w-]+)(\+(?:f[1-5]|m[1-8]))?")  # nothing that leads to another file
_TIMEOUT_S = 60  # for one line


class _Voice(ctypes.Structure):
    """espeak_VOICE. `languages`: a byte of priority, then a name ended by zero, and so on."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


class Espeak:
    """Implement `TextToSpeech` with espeak-ng. Voices are named by language; suffixes `+f1` to `+f5` and `+m1` to `+m8`
    select variants."""

    def __init__(self, listed: dict[str, tuple[str, str]], rate_hz: int) -> None:
        """listed: label and file in espeak-ng's data of every voice, by its language."""
        self._listed, self._rate_hz = listed, rate_hz

    @staticmethod
    def load() -> Espeak:
        """Load the library. Raises InputError where it is not installed, OutputError where it does not start."""
        library, rate_hz = _open()
        return Espeak(_listed(library), rate_hz)

    def voices(self) -> dict[str, str]:
        return {name: label for name, (label, _) in self._listed.items()}

    def synthesise(self, line: Line) -> Sound:
        """Synthesise a line. Raises InputError for an unknown voice, OutputError where espeak-ng fails."""
        named = _NAME.fullmatch(line.voice)
        language, person = named.groups("") if named else ("", "")
        if language not in self._listed:
            near = did_you_mean(language or line.voice, self._listed)
            raise InputError(f"There is no voice '{line.voice}'.{near} `kdtalker --voices` lists them all.")
        # Not by -m, which would import from the folder that the program happens to run in.
        code = f"import sys; sys.path[:] = {sys.path!r}; from kdtalker.tts.espeak import main; main()"
        command = [sys.executable, "-c", code, self._listed[language][1] + person]
        try:
            done = subprocess.run(
                command, input=line.text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise OutputError(f"espeak-ng failed over this text ({type(error).__name__}); try other words.") from None
        return Sound(decode_pcm(done.stdout), self._rate_hz)


espeak = cache(Espeak.load)


def _open() -> tuple[ctypes.CDLL, int]:
    """Load and start the library; return it with its sample rate."""
    try:
        import espeakng_loader
    except ImportError:
        raise InputError(
            f"Text is spoken by espeak-ng (GPL-3.0), which is not installed: run `{sys.executable} -m pip install -e "
            "'.[tts]'` in the project's folder."
        ) from None
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"espeak-ng could not be loaded ({error}); install espeakng-loader again.") from None
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
    if rate_hz <= 0:
        raise OutputError("espeak-ng does not find its data; install espeakng-loader again, under a shorter path.")
    return library, rate_hz


def _listed(library: ctypes.CDLL) -> dict[str, tuple[str, str]]:
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    listed, found, number = library.espeak_ListVoices(None), {}, 0
    while listed[number]:
        voice = listed[number].contents
        number += 1
        if not voice.identifier.startswith(b"mb/"):  # voices of MBROLA, which is not in the wheel
            found[voice.languages[1:].decode()] = voice.name.decode().replace("_", " "), voice.identifier.decode()
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _say(voice_file: str, text: bytes) -> bytes:
    """Synthesise the text in this process; return 16-bit samples."""
    library, _ = _open()
    chunks = []

    def collect(samples: int, count: int, events: Any) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    callback = _CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice_file.encode()) != 0:
        raise OutputError(f"espeak-ng has no file '{voice_file}'; install espeakng-loader again.")
    library.espeak_SetParameter(_RATE, _WORDS_A_MINUTE, 0)
    library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return b"".join(chunks)


def main() -> None:
    """Speak the text on stdin with the voice that the argument names: 16-bit samples on stdout."""
    sys.stdout.buffer.write(_say(sys.argv[1], sys.stdin.buffer.read()))
