"""Natural-sounding TTS by Kokoro, through the package `kokoro-onnx` over weights that were fetched before."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, did_you_mean
from kdtalker.core.npz import npz_names, read_npz
from kdtalker.tts.line import Line, Sound
from kdtalker.weights.find import find, find_missing
from kdtalker.weights.spec import fetch_command
from kdtalker.weights.table import KOKORO, find_row

# The first letter of a voice's name, and what espeak-ng, which spells for it, calls the language.
LANGUAGES = {
    "a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "j": "ja", "p": "pt-br", "z": "cmn",
}  # fmt: skip
STYLE_WIDTH = 256  # numbers of a style vector


class Kokoro:
    """Implement `TextToSpeech` with Kokoro's network."""

    def __init__(self, model: Any, voices: Path) -> None:
        """model: of the package `kokoro-onnx`; voices: the `.npz` of a style (N, 1, 256) for each voice."""
        self._model = model
        self._voices = voices

    @staticmethod
    def load() -> Kokoro:
        """Load network and voices. Raises InputError where package or weights are missing or damaged."""
        if find_spec("kokoro_onnx") is None:
            raise InputError(
                "Kokoro is not installed; `pip install -e '.[tts]'` brings it (MIT; it needs phonemizer, GPL-3.0)."
            )
        lacking = " ".join(find_missing(KOKORO))
        if lacking:
            raise InputError(
                f"Kokoro's voices are not here; `kdtalker weights get {lacking}` fetches them (Apache-2.0)."
            )
        import kokoro_onnx

        model, voices = (find(name) for name in KOKORO)
        npz_names(voices)
        try:
            return Kokoro(kokoro_onnx.Kokoro(str(model), str(voices)), voices)
        except MemoryError:
            raise
        except Exception:  # of ONNX Runtime, which has no common class
            raise InputError(
                f"'{model}' cannot be read as Kokoro's network, it is damaged or another file; {_remedy()}."
            ) from None

    def voices(self) -> dict[str, str]:
        return _labelled(npz_names(self._voices))

    def synthesise(self, line: Line) -> Sound:
        """Synthesise a line. Raises InputError for an unknown voice, and where it cannot speak the text."""
        known = self.voices()
        if line.voice not in known:
            near = did_you_mean(line.voice, known)
            raise InputError(f"Kokoro has no voice '{line.voice}'.{near} `kdtalker --voices` lists them all.")
        language = LANGUAGES.get(line.voice[0], "en-us")
        try:
            samples, rate_hz = self._model.create(line.text, voice=self._style(line.voice), lang=language)
        except ValueError:
            raise InputError(
                f"The voice '{line.voice}' can say nothing of this text; choose one of its language."
            ) from None
        except (InputError, MemoryError):
            raise
        except Exception:  # of ONNX Runtime, which has no common class
            raise InputError(f"Kokoro's network is another one than the voices are for; {_remedy()}.") from None
        return Sound(np.asarray(samples, np.float32).ravel(), int(rate_hz))

    def _style(self, voice: str) -> Array:
        style: Array = read_npz(self._voices, [voice])[voice]
        if style.ndim != 3 or style.shape[1:] != (1, STYLE_WIDTH) or not len(style) or not np.isfinite(style).all():
            raise InputError(f"'{self._voices}' holds another thing than a voice as '{voice}'; {_remedy()}.")
        return style


def _remedy() -> str:
    return f"`{fetch_command([find_row(name) for name in KOKORO])}` fetches them again"


kokoro = cache(Kokoro.load)


def installed_voices() -> dict[str, str]:
    """List the voices as `TextToSpeech.voices` does, but without the network; none where weights are missing."""
    if find_missing(KOKORO):
        return {}
    return _labelled(npz_names(find(KOKORO[1])))


def _labelled(names: Iterable[str]) -> dict[str, str]:
    return {name: f"Kokoro {name[3:].title()} ({LANGUAGES.get(name[0], '?')})" for name in sorted(names)}
