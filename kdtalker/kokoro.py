"""Kokoro sounds like a person; by the package `kokoro-onnx` over weights that were fetched before."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from kdtalker.errors import InputError, did_you_mean
from kdtalker.speaker import Line, Sound
from kdtalker.weights import KOKORO, find, missing

# The first letter of a voice's name, and what espeak-ng, which spells for it, calls the language.
LANGUAGES = {
    "a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "j": "ja", "p": "pt-br", "z": "cmn",
}  # fmt: skip


class Kokoro:
    """A `Speaker`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def load() -> Kokoro:
        """Raises InputError where the package or the weights are not there, or hold something else."""
        try:
            import kokoro_onnx
        except ImportError:
            raise InputError(
                "Kokoro is not installed; `pip install -e '.[tts]'` brings it (MIT; it needs phonemizer, GPL-3.0)."
            ) from None
        lacking = " ".join(missing(KOKORO))
        if lacking:
            raise InputError(
                f"Kokoro's voices are not here; `kdtalker weights get {lacking}` fetches them (Apache-2.0)."
            )
        model, voices = (find(name) for name in KOKORO)
        try:
            return Kokoro(kokoro_onnx.Kokoro(str(model), str(voices)))
        except Exception as error:  # of ONNX Runtime and NumPy, which have no common class
            raise InputError(f"Kokoro could not be read from '{model}' and '{voices}': {error}.") from None

    def voices(self) -> dict[str, str]:
        return _labelled(self._model.get_voices())

    def say(self, line: Line) -> Sound:
        known = self.voices()
        if line.voice not in known:
            near = did_you_mean(line.voice, known)
            raise InputError(f"Kokoro has no voice '{line.voice}'.{near} `kdtalker --voices` lists them all.")
        samples, rate_hz = self._model.create(line.text, voice=line.voice, lang=LANGUAGES.get(line.voice[0], "en-us"))
        return Sound(np.asarray(samples, np.float32).ravel(), int(rate_hz))


kokoro = cache(Kokoro.load)


def voices_here() -> dict[str, str]:
    """The voices as `Speaker.voices` gives them, without loading the network; none where the weights are not here."""
    if missing(KOKORO):
        return {}
    with np.load(find(KOKORO[1])) as file:
        return _labelled(file.files)


def _labelled(names: Iterable[str]) -> dict[str, str]:
    return {name: f"Kokoro {name[3:].title()} ({LANGUAGES.get(name[0], '?')})" for name in sorted(names)}
