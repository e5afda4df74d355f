"""A toy engine, so that every promise of the pipeline can be tested without weights: loudness opens the mouth.

`python tests/toy.py --image ...` is the real command line over it.
"""

import re
import sys
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from kdtalker.apps.cli import main
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MOTION_WIDTH, Motion
from kdtalker.core.protocols import Engine, ExpressionBasis, ExpressionModel, Openings, Sampling, Speech
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME, frame_count
from kdtalker.edits.transfer import start_from, transfer_relative
from kdtalker.pipeline import TalkingPortraitPipeline

BLOCK, WINDOW, SIDE_PX = 5, 12, 64
PROGRESS = re.compile(r"(reading|speaking|loading|finding|making) \w+| *\d+%  ")
NOTHING = np.zeros((0, 1), np.float32)


class ToyEncoder:
    """State: (samples not yet encoded, samples taken). Features are given five frames at a time."""

    feature_size, latency_frames = 1, BLOCK - 1

    def start(self):
        return np.zeros(0, np.float32), 0

    def encode(self, state, samples):
        waiting, taken = np.concatenate([state[0], samples]), state[1] + len(samples)
        ready = len(waiting) // (BLOCK * SAMPLES_PER_FRAME) * BLOCK * SAMPLES_PER_FRAME
        return _loudness(waiting[:ready]), (waiting[ready:], taken)

    def flush(self, state):
        missing = frame_count(state[1]) * SAMPLES_PER_FRAME - state[1]
        return _loudness(np.concatenate([state[0], np.zeros(missing, np.float32)]))


def _loudness(samples):
    return np.abs(samples.reshape(-1, SAMPLES_PER_FRAME)).mean(1, keepdims=True).astype(np.float32)


class ToyModel:
    """State: (rest, seed and sampling, frames given, features not yet used). Windows of twelve frames; the head
    wanders with the seed."""

    latency_frames = WINDOW - 1

    def start(self, canonical, reference, silence, *, seed=0, sampling=Sampling()):
        return reference.vector(), (seed, sampling), 0, NOTHING

    def advance(self, state, features, *, last=False):
        rest, (seed, sampling), given, waiting = state
        waiting = np.concatenate([waiting, features])
        ready = len(waiting) if last else len(waiting) // WINDOW * WINDOW
        vector = np.repeat(rest, ready, axis=0)
        noise = [np.random.default_rng((seed, given + i)).standard_normal(MOTION_WIDTH) for i in range(ready)]
        vector[:, 1:] += 0.5 * np.array(noise, np.float32).reshape(-1, MOTION_WIDTH)[:, 1:]
        vector[:, 7:] += sampling.guidance * waiting[:ready]
        return Motion.from_vector(vector, "mesh"), (rest, (seed, sampling), given + ready, waiting[ready:])


@dataclass(frozen=True)
class ToySource:
    face: np.ndarray
    canonical: np.ndarray
    rest: Motion
    shut: np.ndarray


def _offset(first):
    """Three keypoints move."""
    offset = np.zeros((KEYPOINTS, 3), np.float32)
    offset[first : first + 3, 1] = 1
    return offset


def _lips():
    """Keypoints 3 and 4 are the lips, in y."""
    gap = np.zeros((1, KEYPOINTS, 3), np.float32)
    gap[0, 3:5, 1] = -1, 1
    return gap.reshape(1, -1), gap.reshape(1, -1).T / 2


class ToyRenderer:
    """Pose and shift roll the picture sideways, expression makes it lighter, gaze its first row."""

    space = "mesh"
    expression_model = ExpressionModel(
        mouth=np.diag(np.arange(KEYPOINTS) < 7).astype(np.float32),
        eyes=np.diag(np.arange(KEYPOINTS) >= 14).astype(np.float32),
        basis=ExpressionBasis(*(_offset(first) for first in (0, 5, 14, 17)), *_lips()),
    )

    def encode_source(self, face):
        rest = np.linspace(0.5, 1.5, MOTION_WIDTH, dtype=np.float32)[None]
        return ToySource(face, np.zeros((KEYPOINTS, 3), np.float32), Motion.from_vector(rest, "mesh"), _offset(19))

    def render(self, source, motion, *, paint_mouth=True):
        motion.require_space(self.space)
        moved = motion.vector() - source.rest.vector()
        for vector, gaze in zip(moved, motion.gaze, strict=True):
            face = np.roll(source.face, int(round(float(vector[1:7].sum()))), axis=1)
            light = np.full((SIDE_PX, 1, 1), 100 * vector[7:].mean())
            light[0] += 10 * np.abs(gaze).sum()
            yield np.clip(face + light, 0, 255).astype(np.uint8)

    def isolate(self, source, foreground):
        return replace(source, face=foreground)

    def matte(self, source, matte, motion, face):
        moved = motion.vector() - source.rest.vector()
        return face, np.roll(matte, int(round(float(moved[0, 1:7].sum()))), axis=1)


@dataclass(frozen=True)
class ToyCanvas:
    """The face is the square in the middle, half as wide as the picture's shorter side."""

    picture: np.ndarray
    crop: bool

    @property
    def _square(self):
        height, width = self.picture.shape[:2]
        side = min(height, width) // 2
        top, left = (height - side) // 2, (width - side) // 2
        return slice(top, top + side), slice(left, left + side)

    @property
    def face(self):
        return cv2.resize(self.picture[self._square], (SIDE_PX, SIDE_PX))

    def on(self, picture):
        return replace(self, picture=picture)

    def paste(self, face):
        if self.crop:
            return face
        picture = self.picture.copy()
        target = picture[self._square]
        target[:] = cv2.resize(face, target.shape[1::-1])
        return picture


class ToyEngine(Engine):
    def __init__(self, renderer=None, speech=None):
        self.toy_renderer = renderer or ToyRenderer()
        self.toy_speech = speech or Speech(ToyEncoder(), ToyModel())

    @property
    def renderer(self):
        return self.toy_renderer

    def find_portrait(self, image, *, face=None, box=None, crop=False, max_side=1920, framing="speech"):
        if np.ptp(image) == 0:
            raise InputError("No face was found in the picture; choose one with a face that looks at the camera.")
        if face is not None and face != 0:
            raise InputError(f"Face {face} was asked for, found are faces 0 to 0; choose one of those.")
        return ToyCanvas(image, crop)

    def find_faces(self, image):
        self.find_portrait(image)
        rows, columns = ToyCanvas(image, False)._square
        return [(columns.start, rows.start, rows.stop - rows.start)]

    def track(self, frames):
        """The mean brightness of every frame is its yaw."""
        for frame in frames:
            vector = np.full((1, MOTION_WIDTH), 1, np.float32)
            vector[:, 1] = frame.mean() / 10
            yield Motion.from_vector(vector, "mesh")

    def load_speech(self):
        return self.toy_speech

    def start_from(self, motion, *, rest, first, frame):
        return start_from(motion, rest=rest, first=first, frame=frame)

    def transfer(self, motion, *, first, rest):
        return transfer_relative(motion, first=first, rest=rest)

    def transfer_absolute(self, motion, *, rest):
        return motion

    def measure_openings(self, source, motion):
        return Openings(eyes=np.ones(len(motion), np.float32), lips=motion.expression.mean((1, 2)))


@cache
def untrained_engine():
    """The real encoder and a real, untrained motion model, which can slide, before the toy renderer."""
    import torch

    from kdtalker.audio.whisper import WhisperEncoder
    from kdtalker.diffusion.calibration import Calibration
    from kdtalker.diffusion.config import DenoiserConfig
    from kdtalker.diffusion.denoiser import Denoiser
    from kdtalker.diffusion.model import DiffusionMotionModel
    from kdtalker.diffusion.normalisation import Normalisation
    from kdtalker.diffusion.sliding import sliding_speech

    torch.manual_seed(0)
    encoder = WhisperEncoder.load()
    sizes = {"width": 32, "layers": 2, "heads": 2, "head_width": 16, "rotary_width": 8, "time_width": 16}
    sound = {"audio_width": 24, "audio_input": encoder.feature_size, "adapter_blocks": 1}
    config = DenoiserConfig(**sizes, **sound, window=16, context=4, overlap=3, relative=True, prediction="sample")
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    calibration = Calibration(ToyRenderer.expression_model.mouth, 1.2, np.ones(6))
    denoiser = Denoiser(config).eval().requires_grad_(False)
    model = DiffusionMotionModel(denoiser, unit, "mesh", calibration=calibration)
    return ToyEngine(speech=Speech(encoder, model, sliding_speech(encoder, model)))


def pipeline(engine=None):
    return TalkingPortraitPipeline(engine or ToyEngine())


def picture(width=96, height=80):
    """A picture whose pixels all differ from their neighbours."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def sound(seconds=1.0, seed=0):
    """Noise that swells twice a second."""
    time_s = np.arange(int(seconds * FRAME_RATE_HZ * SAMPLES_PER_FRAME)) / (FRAME_RATE_HZ * SAMPLES_PER_FRAME)
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return (0.2 * noise * np.sin(2 * np.pi * time_s) ** 2).astype(np.float32).clip(-1, 1)


def sentences(stderr):
    """The lines of stderr that are not progress."""
    return [line for line in stderr.splitlines() if line.startswith("kdtalker: ") or not PROGRESS.match(line)]


def crashing(job):
    """An engine that fails in a way that nobody expects."""
    return 1 / 0


if __name__ == "__main__":
    crash = sys.argv[1:2] == ["crash"]
    del sys.argv[1 : 1 + crash]
    sys.exit(main(load=crashing if crash else lambda job: pipeline()))
