"""Types that cross the boundaries between stages: protocols of encoders, motion models and renderers, and the Engine.

All images are RGB uint8, all sound is float32 mono at 16 kHz, all motion runs at 25 frames a second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import FRAMINGS, Motion
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME

Square = tuple[int, int, int]  # left, top and side in px
Box = tuple[float, float, float, float]  # left, top, width and height in px

Record = Callable[[Motion], None]  # called with each piece of motion as it is drawn
Edit = Callable[[Motion, int], Motion]  # (motion, number of its first frame in the film) -> motion

StateT = TypeVar("StateT")
SourceT = TypeVar("SourceT", bound="Source")


class AudioEncoder(Protocol[StateT]):
    """Encode sound into features at 25 frames a second. The state of a stream is a value, handed in and out."""

    @property
    def feature_size(self) -> int:
        """Return C, the number of features a frame."""

    @property
    def latency_frames(self) -> int:
        """Return the most frames of sound after a frame that its features wait for."""

    def start(self) -> StateT:
        """Return the state before the first sample."""

    def encode(self, state: StateT, samples: Array) -> tuple[Array, StateT]:
        """Take samples (N,), N from 0; return the features (T, C) of the frames that became final, T from 0."""

    def flush(self, state: StateT) -> Array:
        """Return the features (T, C) still owed at the end of the sound: ceil(samples / 640) in all."""


class SlidingEncoder(Protocol[StateT]):
    """Encode the end of a stream anew with every hop, by what has been heard up to it and no sample more."""

    def start(self) -> StateT:
        """Return the state before the first sample."""

    def slide(self, state: StateT, samples: Array) -> tuple[Array, StateT]:
        """Take the samples (640 h,) of the next h frames, h > 0; return the features (window, C) of the last frames of
        the stream, those before its first sample silent."""


@dataclass(frozen=True)
class Sampling:
    """Hold the settings of a diffusion sampler: steps (0: the model's own number) and the scale of classifier-free
    guidance (1: the model's own)."""

    steps: int = 0
    guidance: float = 1.0


class MotionModel(Protocol[StateT]):
    """Generate motion from audio features. The state of a stream is a value, handed in and out."""

    @property
    def latency_frames(self) -> int:
        """Return the most features after a frame's own that its motion waits for."""

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> StateT:
        """Return the state before the first frame of a source with keypoints canonical (21, 3) and motion reference
        (T = 1); silence (C,) are the features of silence."""

    def advance(self, state: StateT, features: Array, *, last: bool = False) -> tuple[Motion, StateT]:
        """Take features (T, C), T from 0; return the motion of the frames that became final. last: the stream ends,
        all frames still owed are returned."""


class SlidingModel(Protocol[StateT]):
    """Generate motion hop by hop, each from the features of frames before, in and after it."""

    def start(
        self, canonical: Array, reference: Motion, silence: Array, *, seed: int = 0, sampling: Sampling = Sampling()
    ) -> StateT:
        """Return the state before the first frame; see `MotionModel.start`."""

    def slide(self, state: StateT, features: Array) -> tuple[Motion, StateT]:
        """Take the features (window, C) of the last frames of a stream; return the motion of the next hop."""


@dataclass(frozen=True)
class SlidingSpeech:
    """Hold the two models of a sliding stream. hop_frames: frames that each step makes; lookahead_frames: those that it
    hears beyond its last one."""

    encoder: SlidingEncoder[Any]
    motion_model: SlidingModel[Any]
    hop_frames: int
    lookahead_frames: int


@dataclass(frozen=True)
class Speech:
    """Hold the two models that turn sound into motion. sliding: those that look ahead so many frames, None where the
    models cannot."""

    audio_encoder: AudioEncoder[Any]
    motion_model: MotionModel[Any]
    sliding: Callable[[int], SlidingSpeech] | None = None

    def warm_up(self) -> None:
        """Run the audio encoder once, so that the first film does not wait for it."""
        _ = self.silence

    @cached_property
    def silence(self) -> Array:
        """Compute the features (C,) of silence: the middle frame of two silent seconds."""
        samples = np.zeros(2 * FRAME_RATE_HZ * SAMPLES_PER_FRAME, np.float32)
        features, state = self.audio_encoder.encode(self.audio_encoder.start(), samples)
        if len(features) <= FRAME_RATE_HZ:
            features = np.concatenate([features, self.audio_encoder.flush(state)])
        silence: Array = features[FRAME_RATE_HZ]
        return silence


@dataclass(frozen=True)
class Prosody:
    """Hold the prosody of T frames: emphasis (T,) 0..1; silence_gate (T,) 0..1, 1 where nothing is said; nod (T,), 1
    where a nod on a stressed syllable is lowest."""

    emphasis: Array
    silence_gate: Array
    nod: Array

    def __len__(self) -> int:
        return len(self.silence_gate)

    def __getitem__(self, frames: slice) -> Prosody:
        return Prosody(self.emphasis[frames], self.silence_gate[frames], self.nod[frames])

    def __add__(self, later: Prosody) -> Prosody:
        return Prosody(
            np.append(self.emphasis, later.emphasis),
            np.append(self.silence_gate, later.silence_gate),
            np.append(self.nod, later.nod),
        )


class Canvas(Protocol):
    """Hold the source image (H, W, 3) with the square crop of its face, `face` (S, S, 3)."""

    @property
    def picture(self) -> Image: ...

    @property
    def face(self) -> Image: ...

    def paste(self, face: Image) -> Image:
        """Paste a drawn face (S, S, 3) back into a copy of the source image (H, W, 3)."""

    def on(self, picture: Image) -> Canvas:
        """Return the same square of another picture of the same size."""


class Source(Protocol):
    """Hold an encoded face: canonical keypoints (21, 3), its own motion `rest` (T = 1), and `shut` (21, 3), the
    expression offset that closes its eyelids."""

    @property
    def canonical(self) -> Array: ...

    @property
    def rest(self) -> Motion: ...

    @property
    def shut(self) -> Array: ...


@dataclass(frozen=True)
class ExpressionBasis:
    """Hold blendshapes: expression offsets (21, 3) in the head's axes of a smile, lowered mouth corners, raised
    brows and a frown, each for an amount of 1. lip_gap_jacobian (pairs, 63): expression to the gaps of the inner
    lips; lip_gap_inverse (63, pairs): gaps to the likeliest expression that makes them."""

    smile: Array
    sulk: Array
    brow: Array
    frown: Array
    lip_gap_jacobian: Array
    lip_gap_inverse: Array


@dataclass(frozen=True)
class ExpressionModel:
    """Hold the semantics of a keypoint space: mouth and eyes (21, 21), projections of an expression onto the region
    of mouth and jaw, and of lids and brows; basis: its blendshapes, where they are known."""

    mouth: Array
    eyes: Array
    basis: ExpressionBasis | None = None


@dataclass(frozen=True)
class Openings:
    """Hold the eye and mouth openings of T frames, each (T,), or None where they are unknown. eyes: gap over the eye's
    width. lips: gap over the outer-eye distance where drawn motion is measured, over the mouth's width where a driving
    video or template is (LivePortrait's ratio)."""

    eyes: Array | None
    lips: Array | None


class Renderer(Protocol[SourceT]):
    """Draw faces of one keypoint space. A renderer is stateless: the source holds all that belongs to a face."""

    @property
    def space(self) -> str: ...

    @property
    def expression_model(self) -> ExpressionModel: ...

    def encode_source(self, face: Image) -> SourceT:
        """Encode a face crop (S, S, 3). Raises InputError where there is no face."""

    def render(self, source: SourceT, motion: Motion, *, paint_mouth: bool = True) -> Iterator[Image]:
        """Draw one frame (S, S, 3) for each of the motion's. paint_mouth: False draws the mouth in a faster way, where
        the renderer has one. Raises InputError for another keypoint space."""

    def isolate(self, source: SourceT, foreground: Image) -> SourceT:
        """Replace a source's colours by those of its foreground alone (S, S, 3), for frames with an alpha channel."""

    def matte(self, source: SourceT, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Compute foreground colours (S, S, 3) and alpha matte (S, S) 0..1 of one frame (T = 1) of an isolated source,
        drawn as `face`; matte (S, S) is that of the source image."""


@dataclass(frozen=True)
class EncodedPortrait(Generic[SourceT]):
    """Hold a source image, encoded once for any number of films. framing: the crop of its face, as in `Motion`.
    matte: the alpha matte as grey levels, where frames are to have an alpha channel; the canvas then holds
    foreground colours."""

    canvas: Canvas
    source: SourceT
    framing: str = FRAMINGS[0]
    matte: Canvas | None = None

    @property
    def rest(self) -> Motion:
        """Return the source's own motion (T = 1), with its framing."""
        return replace(self.source.rest, framing=self.framing)


class Engine(ABC, Generic[SourceT]):
    """Provide all that the pipeline needs of one keypoint space: tracking, speech models, motion transfer, renderer."""

    renderer: Renderer[SourceT]

    @abstractmethod
    def find_portrait(
        self,
        image: Image,
        *,
        face: int | None = None,
        box: Box | None = None,
        crop: bool = False,
        max_side: int,
        framing: str,
    ) -> Canvas:
        """Find a face in an image (H, W, 3) and crop it; arguments as of `TalkingPortraitPipeline.portrait`."""

    @abstractmethod
    def find_faces(self, image: Image) -> list[Square]:
        """Return squares around all faces, to choose from, in the order in which `face` of `find_portrait` counts them.

        Raises InputError where there is none."""

    @abstractmethod
    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """Track one face through a driving video at 25 fps, in pieces of any number of frames."""

    @abstractmethod
    def load_speech(self) -> Speech:
        """Load the audio encoder and the motion model. Raises InputError where weights are missing or damaged."""

    @cached_property
    def speech(self) -> Speech:
        """Return the speech models; they are loaded when they are first used."""
        return self.load_speech()

    @abstractmethod
    def start_from(self, motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
        """Fade generated motion, whose first frame has the number `frame`, from the source's own motion `rest` (T = 1);
        first: frame 0 of the stream (T = 1)."""

    @abstractmethod
    def transfer(self, motion: Motion, *, first: Motion, rest: Motion) -> Motion:
        """Transfer driving motion to a source relative to its first frame: the difference from `first` (T = 1) is
        applied to `rest` (T = 1)."""

    @abstractmethod
    def transfer_absolute(self, motion: Motion, *, rest: Motion) -> Motion:
        """Apply motion to a source without retargeting to its pose."""

    def measure_openings(self, source: SourceT, motion: Motion) -> Openings:
        """Measure how far mouth and eyes are open in drawn frames. Both are None where the engine cannot tell."""
        return Openings(None, None)

    def track_openings(self, frames: Iterable[Image]) -> Openings:
        """Measure the eye and lip ratios of a driving video. Raises InputError where the engine does not retarget."""
        raise InputError(_NO_RETARGETING.format(self.renderer.space))

    def retarget(self, source: SourceT, eyes: Array | float | None, lips: Array | float | None) -> Edit:
        """Return the edit that opens eyes and lips by these ratios. Raises InputError where the engine does not
        retarget."""
        raise InputError(_NO_RETARGETING.format(self.renderer.space))


_NO_RETARGETING = "The engine '{}' does not retarget eyes and lips; choose --engine liveportrait."
