"""Assemble the LivePortrait engine from its weight files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kdtalker.audio.encoders import PUBLISHED_ENCODER, load_encoder
from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import KEYPOINTS, LIVEPORTRAIT_SPACE, Motion
from kdtalker.core.protocols import Box, Edit, Engine, Openings, Speech, Square
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.kalman_smoothing import KalmanSmoothedModel
from kdtalker.diffusion.published import load_published_model
from kdtalker.diffusion.speech import load_trained
from kdtalker.edits.transfer import transfer_rotations
from kdtalker.face.openings import measure_openings
from kdtalker.face.portrait import find_squares
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.liveportrait.canvas import LivePortraitCanvas
from kdtalker.renderers.liveportrait.executor import FrameGenerator, find_device
from kdtalker.renderers.liveportrait.fast.cpu import transform_generator, transform_warping
from kdtalker.renderers.liveportrait.networks import Networks
from kdtalker.renderers.liveportrait.regions import absolute_mode_mask
from kdtalker.renderers.liveportrait.renderer import LivePortraitRenderer, LivePortraitSource
from kdtalker.weights.find import find as find_weights
from kdtalker.weights.strict import Find


@dataclass(frozen=True)
class LivePortraitEngine(Engine[LivePortraitSource]):
    """Combine Wav2Lip's audio encoder, KDTalker's denoiser and LivePortrait's renderer.

    find: returns the path of a weight file by its name; checkpoint: a motion model to use instead of the published one.
    """

    tracker: FaceTracker
    renderer: LivePortraitRenderer
    find: Find
    device: torch.device
    checkpoint: Path | None = None

    @staticmethod
    def load(
        device: str = "auto",
        precision: str = "auto",
        weights: Path | None = None,
        checkpoint: Path | None = None,
        compiled: bool = False,
    ) -> LivePortraitEngine:
        """Load the published weights; arguments as in `TalkingPortraitPipeline.liveportrait`. device "auto": the
        fastest available; precision as in `FrameGenerator`, "auto": float16 on CUDA, float32 elsewhere."""
        find, where = partial(find_weights, folder=weights), find_device(device)
        networks = Networks.load(find).to(where)
        if precision == "auto":
            precision = "float16" if where.type == "cuda" else "float32"
        if where.type == "cpu" and precision == "float32" and not compiled:
            transform_warping(networks.warping)
            transform_generator(networks.generator)
        generator = FrameGenerator(networks.warping, networks.generator, where, precision, compiled=compiled)
        tracker = FaceTracker()
        return LivePortraitEngine(tracker, LivePortraitRenderer(networks, generator, tracker), find, where, checkpoint)

    def find_portrait(
        self,
        image: Image,
        *,
        face: int | None = None,
        box: Box | None = None,
        crop: bool = False,
        max_side: int,
        framing: str,
    ) -> LivePortraitCanvas:
        return LivePortraitCanvas.find(
            image, self.tracker, face=face, box=box, crop=crop, max_side=max_side, framing=framing
        )

    def find_faces(self, image: Image) -> list[Square]:
        return find_squares(image, self.tracker)

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        return self.renderer.track(frames)

    def load_speech(self) -> Speech:
        if self.checkpoint is None:
            encoder = load_encoder(PUBLISHED_ENCODER, self.find)
            model = load_published_model(self.find, self.device)
        else:
            encoder, model = load_trained(self.checkpoint, LIVEPORTRAIT_SPACE, self.find)
            if isinstance(model.denoiser, Denoiser):
                model.denoiser.to(self.device)
        return Speech(encoder, KalmanSmoothedModel(model))

    def start_from(self, motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
        """Apply motion relative to its first frame, which becomes the source's pose and expression."""
        return transfer_rotations(motion, first=first, rest=rest)

    def transfer(self, motion: Motion, *, first: Motion, rest: Motion) -> Motion:
        return transfer_rotations(motion, first=first, rest=rest)

    def transfer_absolute(self, motion: Motion, *, rest: Motion) -> Motion:
        return transfer_absolute(motion, rest=rest)

    def track_openings(self, frames: Iterable[Image]) -> Openings:
        return measure_openings(frames, self.tracker)

    def retarget(self, source: LivePortraitSource, eyes: Array | float | None, lips: Array | float | None) -> Edit:
        return self.renderer.retarget(source, eyes, lips)


def transfer_absolute(motion: Motion, *, rest: Motion) -> Motion:
    """Transfer absolute motion: rotation and shift of the driving motion, scale of the source (rest, T = 1).

    Generated motion keeps its whole expression (KDTalker, arXiv 2503.12963); that of a driving video is masked as
    LivePortrait does, without identity. The shift is the source's where the two crops (framing) differ.
    """
    shift = motion.shift if motion.framing == rest.framing else np.repeat(rest.shift, len(motion), axis=0)
    driven = absolute_mode_mask() if motion.framing == "driving" else np.ones((KEYPOINTS, 3), np.float32)
    return replace(
        motion,
        scale=np.repeat(rest.scale, len(motion), axis=0),
        shift=shift,
        expression=driven * motion.expression + (1 - driven) * rest.expression,
        framing=rest.framing,
    )
