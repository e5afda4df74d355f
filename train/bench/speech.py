"""Measure hearing and motion of live sound on one core: `python -m train.bench.speech teacher|student [FILE]` prints a
row of the table of `python -m train.bench runtimes`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, Motion
from kdtalker.core.protocols import SlidingSpeech
from kdtalker.core.rates import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.diffusion.causal.speech import load_student
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.speech import FILMS, STUDENT, has_student, load_teacher
from kdtalker.live.options import LiveOptions
from kdtalker.media.sound import read_sound
from kdtalker.weights.find import find
from train.bench.inputs import VOICE
from train.harness.command import command

LOOKAHEAD_FRAMES = LiveOptions.lookahead
SECONDS, WARM_HOPS = 20, 20
HEADER = (
    "| live speech, one core | loaded after | hearing p50, p95 | motion p50, p95 | both p50, p95 | of a core |\n"
    + "|---" * 6
    + "|"
)


def measure_speech(kind: str, checkpoint: Path | None) -> str:
    """Measure a model in this process, which must be fresh; returns a row: ms of processor time a frame, in brackets of
    wall-clock time. Raises InputError where there is no such model."""
    if kind == "student" and checkpoint is None and not has_student():
        raise InputError("The package has no student; name a file by --student.")
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    began_s = time.process_time()
    speech = load_teacher() if kind == "teacher" else load_student(checkpoint or find(STUDENT))
    assert speech.sliding is not None
    models, silence = speech.sliding(LOOKAHEAD_FRAMES), speech.silence
    load_s = time.process_time() - began_s
    spent = 1000 * time_hops(models, silence) / models.hop_frames
    both = spent.sum(1)
    cells = " | ".join(map(_describe_percentiles, (spent[:, 0], spent[:, 1], both)))
    share = float(both[:, 0].mean()) / (1000 * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ)
    return f"| {kind}, a hop of {models.hop_frames} | {load_s:.2f} s | {cells} | {100 * share:.0f} % |"


def _describe_percentiles(times: Array) -> str:
    """Describe times (n, 2), of the processor and in brackets of the clock."""
    return ", ".join("{:.1f} ({:.1f})".format(*np.percentile(times, share, axis=0)) for share in (50, 95))


def time_hops(models: SlidingSpeech, silence: Array) -> Array:
    """Time the hops of a voice: s of each (hops, hearing and motion, processor and wall-clock time)."""
    voice = np.resize(np.concatenate(list(read_sound(VOICE))), SECONDS * SAMPLE_RATE_HZ)
    normalisation = read_motion_header(find(FILMS)).normalisation
    rest = Motion.from_vector(normalisation.mean[None], "mesh")
    canonical = normalisation.canonical_mean.reshape(KEYPOINTS, 3)
    encoded = models.encoder.start()
    state = models.motion_model.start(canonical, rest, silence)
    ahead, hop = models.lookahead_frames * SAMPLES_PER_FRAME, models.hop_frames * SAMPLES_PER_FRAME
    starts, spent = range(ahead + hop, len(voice) - hop + 1, hop), []
    for start, end in [(0, ahead + hop), *((start, start + hop) for start in starts)]:
        clocks = [_clocks()]
        features, encoded = models.encoder.slide(encoded, voice[start:end])
        clocks.append(_clocks())
        _, state = models.motion_model.slide(state, features)
        clocks.append(_clocks())
        spent.append(np.diff(clocks, axis=0))
    return np.asarray(spent[WARM_HOPS:], np.float32)


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


@command
def main() -> None:
    """Print the row of a model."""
    parser = argparse.ArgumentParser(description="Measure hearing and motion of live sound on one core.")
    parser.add_argument("kind", choices=("teacher", "student"))
    parser.add_argument("file", type=Path, nargs="?", help="a student (default: that of the package)")
    asked = parser.parse_args()
    print(measure_speech(asked.kind, asked.file))


if __name__ == "__main__":
    main()
