"""Measure lip closures at bilabial phones: `python -m train.closures GRID [--films N] [--seeds N]`, GRID a folder of
videos of the GRID corpus with `.align` files of their words.

pocketsphinx (extra [train]) force-aligns phones. At every p, b and m the least mouth opening within 80 ms is taken, in
the real videos and in those generated from their first frame and sound; lips are closed below the threshold that best
separates p, b, m from vowels in the real videos. Then the bundled portraits speak the bundled voices, with a second of
silence before and after. One line a group: how often lips close at p, b, m and at vowels, and the share of silent
frames with closed lips, from 300 ms after the silence begins."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.core.arrays import Array
from kdtalker.core.pcm import encode_pcm
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from kdtalker.face.landmarks import mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.renderers.mesh.source import MeshSource
from train.evaluate.held_out import track_landmarks
from train.harness.command import command

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAITS = ("grace_hopper.jpg", "astronaut.png")
CLOSING = {"P", "B", "M"}
VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "EY", "IH", "IY", "OW", "OY", "UH", "UW", "ER"}
WITHIN_FRAMES = 2  # a closure counts within so many frames (80 ms) of the middle of a phone
SILENCE_S, LATER_S = 0.3, 0.06  # lips are measured from so long after the begin of a silence to so long before its end
PHONE_STEP_S = 0.01  # unit of pocketsphinx's times


@dataclass(frozen=True)
class Phone:
    """Describe a phone, or silence ("SIL"), with start and end."""

    name: str
    start_s: float
    end_s: float


def align_phones(samples: Array, text: str) -> list[Phone]:
    """Force-align the phones of a text with its sound (N,) at 16 kHz."""
    from pocketsphinx import Decoder

    raw = encode_pcm(samples)
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
class MouthOpenings:
    """Hold mouth openings of one or several videos: the least at each p, b, m (N,) and each vowel (M,), and that of
    every silent frame (K,)."""

    closing: Array
    vowels: Array
    silence: Array

    @staticmethod
    def of(opening: Array, phones: list[Phone]) -> MouthOpenings:
        """Measure one video from its mouth opening (T,) at 25 fps and its phones."""
        middles = [(phone.name, (phone.start_s + phone.end_s) / 2) for phone in phones]
        silent = [
            opening[round((phone.start_s + SILENCE_S) * FRAME_RATE_HZ) : round((phone.end_s - LATER_S) * FRAME_RATE_HZ)]
            for phone in phones
            if phone.name == "SIL"
        ]
        return MouthOpenings(
            np.array([_least(opening, time_s) for name, time_s in middles if name in CLOSING]),
            np.array([_least(opening, time_s) for name, time_s in middles if name in VOWELS]),
            np.concatenate([*silent, opening[:0]]),
        )

    @staticmethod
    def concatenate(parts: list[MouthOpenings]) -> MouthOpenings:
        """Concatenate the openings of several videos."""
        return MouthOpenings(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def threshold(self) -> float:
        """Find the opening that best separates p, b, m from vowels (Youden's index)."""
        tried = np.unique(np.concatenate([self.closing, self.vowels]))
        return float(max(tried, key=lambda one: (self.closing <= one).mean() - (self.vowels <= one).mean()))

    def describe(self, threshold: float) -> str:
        """Format the shares of closed lips, closed meaning at most `threshold` open."""
        closing, vowels, silence = (
            f"{100 * (values <= threshold).mean():.0f} % of {len(values)}" if len(values) else "none of 0"
            for values in (self.closing, self.vowels, self.silence)
        )
        return f"lips closed at {closing} p, b, m, at {vowels} vowels, in {silence} silent frames"


def _least(opening: Array, time_s: float) -> float:
    frame = min(int(time_s * FRAME_RATE_HZ), len(opening) - 1)
    return float(opening[max(0, frame - WITHIN_FRAMES) : frame + WITHIN_FRAMES + 1].min())


def read_transcript(path: Path) -> str:
    """Read the words of a GRID `.align` file."""
    words = [line.split()[2] for line in path.read_text().splitlines()]
    return " ".join(word for word in words if word not in ("sil", "sp"))


def track_speech(
    pipeline: TalkingPortraitPipeline[MeshSource],
    portrait: EncodedPortrait[MeshSource],
    samples: Array,
    phones: list[Phone],
    seed: int,
) -> MouthOpenings:
    """Generate speech of a portrait and measure its mouth as tracked in the rendered video."""
    made = track_landmarks(pipeline.animate(portrait, [samples], Options(seed=seed)), FaceTracker())
    return MouthOpenings.of(mouth_opening(made), phones)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="folder of films with .align files")
    parser.add_argument("--films", type=int, default=24, help="so many, evenly spread")
    parser.add_argument("--seeds", type=int, default=1, help="samples of each")
    options = parser.parse_args()
    pipeline = TalkingPortraitPipeline.mesh()
    known = sorted(options.grid.glob("*.align"))
    real: list[MouthOpenings] = []
    ours: list[MouthOpenings] = []
    for path in known[:: max(1, len(known) // options.films)]:
        film = path.with_suffix(".mp4")
        samples = np.concatenate(list(read_sound(film)))
        phones = align_phones(samples, read_transcript(path))
        real.append(MouthOpenings.of(mouth_opening(track_landmarks(read_video(film), FaceTracker())), phones))
        portrait = pipeline.portrait(next(read_video(film)), crop=True)
        ours += [track_speech(pipeline, portrait, samples, phones, seed) for seed in range(options.seeds)]
    threshold = MouthOpenings.concatenate(real).threshold()
    print(f"closed: inner lips less than {threshold:.4f} outer eye distances apart")
    print(f"real films of GRID: {MouthOpenings.concatenate(real).describe(threshold)}")
    print(f"their first frames speaking: {MouthOpenings.concatenate(ours).describe(threshold)}", flush=True)
    for name in PORTRAITS:
        portrait, said = pipeline.portrait(read_image(EXAMPLES / name), crop=True), []
        for voice in sorted(EXAMPLES.glob("*.wav")):
            samples = np.pad(np.concatenate(list(read_sound(voice))), SAMPLE_RATE_HZ)
            phones = align_phones(samples, voice.with_suffix(".txt").read_text())
            said += [track_speech(pipeline, portrait, samples, phones, seed) for seed in range(options.seeds)]
        print(f"{name} says the bundled voices: {MouthOpenings.concatenate(said).describe(threshold)}", flush=True)


if __name__ == "__main__":
    main()
