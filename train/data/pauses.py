"""Make speech with long pauses: `python -m train.data.pauses SOUNDS... --out DIR --minutes N`.

Recordings of readers hardly pause, and where they do, the room is heard. Replies in a live session come out of digital
silence and end in it. Sounds are cut into phrases where they pause, and phrases of one sound are joined, with digital
silence between them, to sounds of half a minute. What comes out depends on nothing but the sounds and the seed."""

from __future__ import annotations

import argparse
from pathlib import Path

import librosa
import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.pcm import encode_wav
from kdtalker.core.rates import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.media.sound import read_sound
from train.harness.command import command

QUIET_DB = 30.0  # below the loudest frame of a sound, from which on it pauses
PHRASE_S = (0.15, 4.0)  # shortest and longest phrase
SILENCE_S = (0.4, 2.5)  # shortest and longest silence
LENGTH_S = 30.0  # of a sound that is made


def split_phrases(sound: Array) -> list[Array]:
    """Cut a sound (N,) at 16 kHz where it pauses; return its phrases, the longest cut short."""
    if not sound.any():
        return []
    hop = SAMPLES_PER_FRAME // 2
    spans = librosa.effects.split(sound, top_db=QUIET_DB, frame_length=2 * hop, hop_length=hop)
    least, most = (int(seconds * SAMPLE_RATE_HZ) for seconds in PHRASE_S)
    return [sound[first : min(last, first + most)] for first, last in spans if last - first >= least]


def join_phrases(phrases: list[Array], rng: np.random.Generator) -> Array:
    """Join phrases drawn at random to a sound, silence before, between and after them."""
    parts, length = list[Array](), 0
    while length < LENGTH_S * SAMPLE_RATE_HZ:
        silence = np.zeros(int(rng.uniform(*SILENCE_S) * SAMPLE_RATE_HZ), np.float32)
        parts += [silence, phrases[int(rng.integers(len(phrases)))]]
        length += len(parts[-2]) + len(parts[-1])
    return np.concatenate([*parts, np.zeros(int(SILENCE_S[0] * SAMPLE_RATE_HZ), np.float32)])


def make_pauses(sounds: list[Path], out: Path, minutes: float, seed: int) -> int:
    """Write sounds of so many minutes, in turns of the phrases of each sound; return their number. Raises InputError
    where a sound cannot be read or none has a phrase."""
    rng = np.random.default_rng(seed)
    phrases = {path: split_phrases(np.concatenate(list(read_sound(path)))) for path in sounds}
    speaking = [path for path in sounds if phrases[path]]
    if not speaking:
        raise InputError(f"None of {len(sounds)} sounds has a phrase of {PHRASE_S[0]} s, wanted sounds of speech.")
    out.mkdir(parents=True, exist_ok=True)
    count = int(np.ceil(minutes * 60 / LENGTH_S))
    for number in range(count):
        path = speaking[number % len(speaking)]
        name = f"{path.stem}_pauses_{number // len(speaking):02d}.wav"
        content = encode_wav(join_phrases(phrases[path], rng), SAMPLE_RATE_HZ)
        write_atomically(out / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return count


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Make speech with long pauses.")
    parser.add_argument("sounds", type=Path, nargs="+", help="sounds of speech")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sounds to write")
    parser.add_argument("--minutes", type=float, default=30.0, help="of all sounds together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = make_pauses(options.sounds, options.out, options.minutes, options.seed)
    print(f"{options.out}: {count} sounds")


if __name__ == "__main__":
    main()
