"""Make the pictures and sounds of the benchmarks from the bundled ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kdtalker.core.pcm import encode_wav
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.media.sound import read_sound
from train.bench.record import ROOT

PORTRAIT = ROOT / "examples" / "grace_hopper.jpg"
VOICE = ROOT / "examples" / "austen_0870.wav"
CROP = "512x512"  # the square of the bundled portrait's face
FULL_HD = 1080
WIDE = {"1920x1080": FULL_HD, "3840x2160": 2160}  # heights in px of wide pictures


@dataclass(frozen=True)
class Inputs:
    """Hold the folder in which pictures and sounds are made when they are first asked for."""

    folder: Path

    def picture(self, size: str) -> list[str]:
        """Return the arguments of the film command for a portrait of a size: CROP or one of WIDE."""
        if size == CROP:
            return ["--image", str(PORTRAIT), "--crop"]
        path = self.folder / f"{size}.png"
        if not path.exists():
            write_wide(path, WIDE[size])
        side, _, _ = size.partition("x")
        limit = ["--max-side", side] if WIDE[size] > FULL_HD else []  # an option that earlier commits do not have
        return ["--image", str(path), *limit]

    def voice(self, seconds: float) -> list[str]:
        """Return the arguments of the film command for a sound of a length in s; 0 is one sample, so one frame."""
        path = self.folder / f"{seconds:g}.wav"
        if not path.exists():
            write_voice(path, seconds)
        return ["--audio", str(path)]


def write_voice(path: Path, seconds: float) -> None:
    """Write the bundled voice as WAV, repeated to that length in s, one sample at least."""
    samples = np.concatenate(list(read_sound(VOICE)))
    samples = np.resize(samples, max(1, round(seconds * SAMPLE_RATE_HZ)))
    path.write_bytes(encode_wav(samples, SAMPLE_RATE_HZ))


def write_wide(path: Path, height: int) -> None:
    """Write the bundled portrait, enlarged to a height in px, in the middle of a grey 16:9 picture."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    factor, width = height / len(portrait), height * 16 // 9
    portrait = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    picture = np.full((height, width, 3), 128, np.uint8)
    left = (width - portrait.shape[1]) // 2
    picture[:, left : left + portrait.shape[1]] = portrait
    cv2.imwrite(str(path), picture)
