"""Do lips close where speech closes them: `python -m train.closures GRID [--films N] [--seeds N]`, GRID a folder of
films with `.align` files of the words in them.

Phones are aligned by pocketsphinx (extra [train]). At every p, b and m the least mouth opening within 80 ms is looked
at, in the real films and in those that their own first frame speaks; closed is what is below the threshold that tells
the real films' p, b and m from their vowels best. Then the bundled portraits say the bundled voices, with a second of
silence before and after. One line a group: how often lips close at p, b, m, how often at vowels, and the share of
frames with closed lips in silence, from 300 ms after its begin on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.core.arrays import Array
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.face.landmarks import mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from train.evaluate.held_out import landmarks
from train.harness.command import command

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAITS = ("grace_hopper.jpg", "astronaut.png")
CLOSING = {"P", "B", "M"}
VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "EY", "IH", "IY", "OW", "OY", "UH", "UW", "ER"}
WITHIN_FRAMES = 2  # 80 ms at 25 fps
SILENCE_S, LATER_S = 0.3, 0.06  # silence that counts; how long before its end lips may part again
PHONE_STEP_S = 0.01


@dataclass(frozen=True)
class Phone:
    """A speech sound, or "SIL", and when it lasts."""

    name: str
    start_s: float
    end_s: float


def align(samples: Array, text: str) -> list[Phone]:
    """The phones of a text in its sound, mono at 16 kHz."""
    from pocketsphinx import Decoder

    raw = (samples * 32767).astype("<i2").tobytes()
    decoder = Decoder(samprate=SAMPLE_RATE_HZ, bestpath=False, loglevel="FATAL")
    decoder.set_align_text(text)
    for last in (False, True):  # words, then the phones in them
        decoder.start_utt()
        decoder.process_raw(raw, full_utt=True)
        decoder.end_utt()
        if not last:
            decoder.set_alignment()
    spans = [phone for word in decoder.get_alignment() for phone in word]
    return [Phone(one.name, one.start * PHONE_STEP_S, (one.start + one.duration) * PHONE_STEP_S) for one in spans]


@dataclass(frozen=True)
class Openings:
    """Of one or several films: the least opening at each p, b, m (N,) and each vowel (M,), and that of every frame in
    silence (K,)."""

    closing: Array
    vowels: Array
    silence: Array

    @staticmethod
    def of(opening: Array, phones: list[Phone]) -> Openings:
        """opening (T,) of the mouth at 25 fps."""
        middles = [(phone.name, (phone.start_s + phone.end_s) / 2) for phone in phones]
        silent = [
            opening[round((phone.start_s + SILENCE_S) * FRAME_RATE_HZ) : round((phone.end_s - LATER_S) * FRAME_RATE_HZ)]
            for phone in phones
            if phone.name == "SIL"
        ]
        return Openings(
            np.array([_least(opening, time_s) for name, time_s in middles if name in CLOSING]),
            np.array([_least(opening, time_s) for name, time_s in middles if name in VOWELS]),
            np.concatenate([*silent, opening[:0]]),
        )

    @staticmethod
    def together(parts: list[Openings]) -> Openings:
        return Openings(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def threshold(self) -> float:
        """The opening that tells closing sounds from vowels best (Youden's index)."""
        tried = np.unique(np.concatenate([self.closing, self.vowels]))
        return float(max(tried, key=lambda one: (self.closing <= one).mean() - (self.vowels <= one).mean()))

    def told(self, threshold: float) -> str:
        closing, vowels, silence = (
            f"{100 * (values <= threshold).mean():.0f} % of {len(values)}" if len(values) else "none of 0"
            for values in (self.closing, self.vowels, self.silence)
        )
        return f"lips closed at {closing} p, b, m, at {vowels} vowels, in {silence} silent frames"


def _least(opening: Array, time_s: float) -> float:
    frame = min(int(time_s * FRAME_RATE_HZ), len(opening) - 1)
    return float(opening[max(0, frame - WITHIN_FRAMES) : frame + WITHIN_FRAMES + 1].min())


def words_of(path: Path) -> str:
    """The text of a GRID `.align` file."""
    words = [line.split()[2] for line in path.read_text().splitlines()]
    return " ".join(word for word in words if word not in ("sil", "sp"))


def spoken(
    pipeline: TalkingPortraitPipeline, portrait: EncodedPortrait, samples: Array, phones: list[Phone], seed: int
) -> Openings:
    """A portrait says it; its mouth as the tracker sees it."""
    made = landmarks(pipeline.animate(portrait, [samples], Options(seed=seed)), FaceTracker())
    return Openings.of(mouth_opening(made), phones)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="folder of films with .align files")
    parser.add_argument("--films", type=int, default=24, help="so many, evenly spread")
    parser.add_argument("--seeds", type=int, default=1, help="takes of each")
    options = parser.parse_args()
    pipeline = TalkingPortraitPipeline.mesh()
    known = sorted(options.grid.glob("*.align"))
    real, ours = [], []
    for path in known[:: max(1, len(known) // options.films)]:
        film = path.with_suffix(".mp4")
        samples = np.concatenate(list(read_sound(film)))
        phones = align(samples, words_of(path))
        real.append(Openings.of(mouth_opening(landmarks(read_video(film), FaceTracker())), phones))
        portrait = pipeline.portrait(next(read_video(film)), crop=True)
        ours += [spoken(pipeline, portrait, samples, phones, seed) for seed in range(options.seeds)]
    threshold = Openings.together(real).threshold()
    print(f"closed: inner lips less than {threshold:.4f} outer eye distances apart")
    print(f"real films of GRID: {Openings.together(real).told(threshold)}")
    print(f"their first frames speaking: {Openings.together(ours).told(threshold)}", flush=True)
    for name in PORTRAITS:
        portrait, said = pipeline.portrait(read_image(EXAMPLES / name), crop=True), []
        for voice in sorted(EXAMPLES.glob("*.wav")):
            samples = np.pad(np.concatenate(list(read_sound(voice))), SAMPLE_RATE_HZ)
            phones = align(samples, voice.with_suffix(".txt").read_text())
            said += [spoken(pipeline, portrait, samples, phones, seed) for seed in range(options.seeds)]
        print(f"{name} says the bundled voices: {Openings.together(said).told(threshold)}", flush=True)


if __name__ == "__main__":
    main()
