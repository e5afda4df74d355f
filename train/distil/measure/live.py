"""Measure speech models as live sessions run them, on cached clips with real motion: `python -m train.distil measure
CACHE --out DIR [--lookahead L...] [--checkpoint FILE]`.

Whatever the model, the generators of `kdtalker.motion_stream` make its motion, piece by piece, with several seeds; it
is compared with the real motion of the validation split. One row of results for each look-ahead is written to DIR; a
row that is there is measured again only with --again. Of several seeds the sound is heard once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, MOTION_WIDTH, Motion, to_head_frame
from kdtalker.core.options import WHOLE_WINDOWS, Options
from kdtalker.core.protocols import Speech
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.diffusion.causal.header import holds_student, read_student_header
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.speech import load_speech, load_teacher
from kdtalker.motion_stream import start_generator
from kdtalker.weights.find import find
from train.distil.cache import TeacherRecord, load_records
from train.distil.measure.cost import describe_processor, one_thread
from train.distil.measure.motion import SEEDS, motion_figures
from train.distil.measure.rows import ResultRow, row_path
from train.distil.measure.validation import average
from train.harness.figures import Metrics
from train.harness.provenance import describe_commit

ROOT = Path(__file__).parents[3]
TEACHER = "mesh_motion.safetensors"
LOOKAHEADS = (WHOLE_WINDOWS, 2, 3, 4, 8)
WARM_UP_S = 2


@dataclass(frozen=True)
class RecordSource:
    """Hold the face of a record as motion models know it (implements Source)."""

    canonical: Array
    rest: Motion
    shut: Array = field(default_factory=lambda: np.zeros((KEYPOINTS, 3), np.float32))

    @staticmethod
    def of(record: TeacherRecord, normalisation: Normalisation) -> RecordSource:
        """Restore canonical keypoints and the face's own motion, whose pose and shift are 0."""
        normalised, reference = record.portrait[:-MOTION_WIDTH], record.portrait[-MOTION_WIDTH:]
        canonical = normalised * normalisation.canonical_std + normalisation.canonical_mean
        rest = normalisation.restore(reference)
        rest[1:7] = 0
        return RecordSource(canonical.reshape(KEYPOINTS, 3), Motion.from_vector(rest[None], MESH_SPACE))


@dataclass(frozen=True)
class HeardOnce:
    """Encode a sound when it is first heard, then give the same features to every seed (implements AudioEncoder and
    SlidingEncoder); the state is a digest of what was heard."""

    encoder: Any
    heard: dict[bytes, tuple[Array, Any]] = field(default_factory=dict)

    @property
    def feature_size(self) -> int:
        size: int = self.encoder.feature_size
        return size

    @property
    def latency_frames(self) -> int:
        frames: int = self.encoder.latency_frames
        return frames

    def start(self) -> bytes:
        return b""

    def encode(self, state: bytes, samples: Array) -> tuple[Array, bytes]:
        return self._hear(state, samples, self.encoder.encode)

    def slide(self, state: bytes, samples: Array) -> tuple[Array, bytes]:
        return self._hear(state, samples, self.encoder.slide)

    def flush(self, state: bytes) -> Array:
        return self._hear(state, np.zeros(0, np.float32), lambda before, _: (self.encoder.flush(before), None))[0]

    def _hear(
        self, state: bytes, samples: Array, encode: Callable[[Any, Array], tuple[Array, Any]]
    ) -> tuple[Array, bytes]:
        key = sha256(state + samples.tobytes()).digest()
        if key not in self.heard:
            self.heard[key] = encode(self.heard[state][1] if state else self.encoder.start(), samples)
        return self.heard[key][0], key


def hear_once(speech: Speech, lookahead: int) -> Speech:
    """Make a sound that several seeds speak be encoded once. Raises InputError for models that cannot slide, where they
    are asked to."""
    if lookahead == WHOLE_WINDOWS:
        return replace(speech, audio_encoder=HeardOnce(speech.audio_encoder))
    if speech.sliding is None:
        raise InputError("This model makes motion in whole windows alone; ask for --lookahead -1.")
    sliding = speech.sliding(lookahead)
    once = replace(sliding, encoder=HeardOnce(sliding.encoder))
    return replace(speech, sliding=lambda _: once)


@dataclass(frozen=True)
class Spoken:
    """Hold motion vectors (S, T, 70) of S seeds, relative and in the head's axes; of the first seed, the processor time
    in ms that each frame of sound took, hearing included, and the most frames of sound that a frame waited for."""

    vectors: Array
    spent_ms: list[float]
    delay_frames: int


def speak(speech: Speech, source: RecordSource, sound: Array, lookahead: int, seeds: int) -> Spoken:
    """Speak a sound (N,) as a session does, with seeds 0, 1 …"""
    heard = hear_once(speech, lookahead)
    spoken = [_speak_once(heard, source, sound, Options(seed=seed, lookahead=lookahead)) for seed in range(seeds)]
    return replace(spoken[0], vectors=np.concatenate([one.vectors for one in spoken]))


def _speak_once(speech: Speech, source: RecordSource, sound: Array, options: Options) -> Spoken:
    generator, delay_frames = start_generator(speech, source, options), 0
    made, spent_ms = list[Motion](), list[float]()
    for number, samples in enumerate(sound.reshape(-1, SAMPLES_PER_FRAME)):
        began_s = time.process_time()
        motion, _ = generator.advance(samples)
        spent_ms.append(1000 * (time.process_time() - began_s))
        if len(motion):
            delay_frames = max(delay_frames, number - sum(len(one) for one in made))
            made.append(motion)
    made.append(generator.end()[0])
    vectors = to_head_frame(Motion.concatenate(made)).vector()
    return Spoken(vectors[None], spent_ms, delay_frames)


@dataclass(frozen=True)
class LiveMeter:
    """Measure speech models on records. name: of the models; file: their checkpoint."""

    name: str
    file: Path
    speech: Speech
    normalisation: Normalisation
    records: list[TeacherRecord]
    seeds: int = SEEDS

    def settings(self, lookahead: int) -> dict[str, Any]:
        """Collect the settings that a row depends on beside the code."""
        checkpoint = sha256(self.file.read_bytes()).hexdigest()[:16]
        return {"lookahead": lookahead, "seeds": self.seeds, "checkpoint": checkpoint}

    def measure(self, lookahead: int) -> ResultRow:
        """Measure with a look-ahead: figures of motion, means over clips; the most ms of sound that a frame waited for
        beyond its own; processor ms a frame, their mean and what 95 in 100 do not exceed."""
        clips: dict[str, Metrics] = {}
        spent_ms, delay_frames = list[float](), 0
        with one_thread():
            self._warm_up(lookahead)
            for record in self.records:
                sound = record.sound.astype(np.float32)
                spoken = speak(self.speech, RecordSource.of(record, self.normalisation), sound, lookahead, self.seeds)
                clips[record.name] = motion_figures(spoken.vectors, self.normalisation.restore(record.motion))
                spent_ms += spoken.spent_ms
                delay_frames = max(delay_frames, spoken.delay_frames)
        cost = {
            "delay ms": 1000 / FRAME_RATE_HZ * delay_frames,
            "ms a frame": float(np.mean(spent_ms)),
            "ms p95": float(np.quantile(spent_ms, 0.95)),
            "processor": describe_processor(),
        }
        data = {"clips": len(self.records), "frames": len(spent_ms)}
        return ResultRow(self.title(lookahead), 0, self.settings(lookahead), data, describe_commit(ROOT), 0, cost,
                   average(clips), clips)  # fmt: skip

    def title(self, lookahead: int) -> str:
        """Name a row."""
        return f"{self.name}, " + ("whole windows" if lookahead == WHOLE_WINDOWS else f"look-ahead {lookahead}")

    def _warm_up(self, lookahead: int) -> None:
        record = self.records[0]
        sound = record.sound[: WARM_UP_S * SAMPLE_RATE_HZ].astype(np.float32)
        speak(self.speech, RecordSource.of(record, self.normalisation), sound, lookahead, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("cache", type=Path, help="folder that `cache` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows")
    parser.add_argument("--checkpoint", type=Path, help="a student, or another motion model; default: the package's")
    parser.add_argument("--name", help="of the rows; default: teacher, of a checkpoint the names of its last folders")
    known = ", ".join(map(str, LOOKAHEADS))
    parser.add_argument("--lookahead", type=int, nargs="+", metavar="FRAMES", help="-1: whole windows; default: of a "
                        f"student its own, else {known}")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--again", action="store_true", help="measure rows that are there again")


def run(options: argparse.Namespace) -> None:
    """Measure all look-aheads whose rows are missing or of another model; print one line each."""
    records = [one for one in load_records(options.cache) if one.split == "val" and one.has_motion]
    if not records:
        raise InputError(f"No clip in '{options.cache}' is of the split 'val' and has real motion to compare with.")
    file = options.checkpoint or find(TEACHER)
    normalisation = read_motion_header(find(TEACHER)).normalisation  # of the records, not of the checkpoint
    speech = load_speech(file, MESH_SPACE) if options.checkpoint else load_teacher()
    name = options.name or ("teacher" if options.checkpoint is None else " ".join(file.parts[-3:-1] or [file.stem]))
    meter = LiveMeter(name, file, speech, normalisation, records, options.seeds)
    is_student = holds_student(file)
    own = (read_student_header(file).config.encoder.lookahead_frames,) if is_student else LOOKAHEADS
    for lookahead in options.lookahead or own:
        path = row_path(options.out, meter.title(lookahead), 0)
        row = ResultRow.load(path) if path.exists() and not options.again else None
        if row is None or row.settings != meter.settings(lookahead) or list(row.clips) != [one.name for one in records]:
            row = meter.measure(lookahead)
            row.save(options.out)
        shown = {name: row.means[name] for name in ("r", "r mean", "amplitude", "closures met") if name in row.means}
        cost = f"{row.cost['delay ms']:.0f} ms delay, {row.cost['ms a frame']:.1f} ms a frame"
        print(f"{row.name}: {', '.join(f'{name} {value:.3f}' for name, value in shown.items())}; {cost}", flush=True)
