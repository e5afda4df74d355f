"""LivePortrait renderer (arXiv 2407.03168): encode a source face, generate frames, track driving videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, tee

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, LIVEPORTRAIT_SPACE, NOT_RETARGETED, Motion, project
from kdtalker.core.protocols import Edit, ExpressionModel
from kdtalker.face.background import isolate
from kdtalker.face.landmarks import eye_ratios
from kdtalker.face.openings import lip_ratio
from kdtalker.face.region import Region
from kdtalker.face.tracker import FaceTracker
from kdtalker.renderers.liveportrait.canvas import SIDE_PX, warp_crop
from kdtalker.renderers.liveportrait.crops import driving_square, mean_square
from kdtalker.renderers.liveportrait.executor import Appearance, FrameGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import RawMotion, decode_angle
from kdtalker.renderers.liveportrait.networks import Networks
from kdtalker.renderers.liveportrait.regions import EYE_KEYPOINTS, LIP_KEYPOINTS

INPUT_PX = 256  # side of the image that the appearance and motion extractors take
OPEN_LIP_RATIO = 0.03  # lip ratio from which the source's mouth counts as open
MAX_SHIFT = 0.3  # limit of the head's translation from the source, over half the crop's side (soft, by tanh)


@dataclass(frozen=True)
class LivePortraitSource:
    """Hold an encoded source face: a `Source` with its appearance and its opening ratios.

    rest: the source's motion (T = 1), whose `retarget` closes a mouth that is open; shut: zero, as the published motion
    model generates blinks itself; keypoints (21, 3): those of `rest`; eyes (2,): left and right lid gap over eye width;
    lips: inner lip gap over mouth width.
    """

    canonical: Array
    rest: Motion
    shut: Array
    keypoints: Array
    eyes: Array
    lips: float
    appearance: Appearance


def _projection(keypoints: tuple[int, ...]) -> Array:
    """Build the projection (21, 21) of an expression onto these keypoints."""
    return np.diag(np.isin(np.arange(KEYPOINTS), keypoints)).astype(np.float32)


class LivePortraitRenderer:
    """Generate faces of 512 x 512 px in the keypoint space "liveportrait"."""

    space = LIVEPORTRAIT_SPACE
    expression_model = ExpressionModel(mouth=_projection(LIP_KEYPOINTS), eyes=_projection(EYE_KEYPOINTS))

    def __init__(self, networks: Networks, generator: FrameGenerator, tracker: FaceTracker) -> None:
        self._networks, self._generator, self._tracker = networks, generator, tracker

    def encode_source(self, face: Image) -> LivePortraitSource:
        """Encode an upright face crop, RGB (512, 512, 3). Raises InputError for another shape or without a face."""
        if face.shape != (SIDE_PX, SIDE_PX, 3):
            raise InputError(f"The face's picture has the shape {face.shape}, wanted ({SIDE_PX}, {SIDE_PX}, 3).")
        found = self._tracker.find(face)
        if not found:
            raise InputError("No face was found in the square around it; give a sharper picture.")
        eyes, lips = eye_ratios(found[0].landmarks), lip_ratio(found[0].landmarks)
        raw = self._networks.motion(self._network_input(face))
        wanted = np.array([[NOT_RETARGETED, 0 if lips >= OPEN_LIP_RATIO else NOT_RETARGETED]], np.float32)
        rest, canonical = replace(decode_motion(raw), retarget=wanted), raw.kp.cpu().numpy().reshape(KEYPOINTS, 3)
        keypoints = project(canonical, rest)[0]
        volume = self._networks.appearance(self._network_input(face))
        return LivePortraitSource(
            canonical=canonical,
            rest=rest,
            shut=np.zeros((KEYPOINTS, 3), np.float32),
            keypoints=keypoints,
            eyes=eyes,
            lips=lips,
            appearance=self._generator.prepare(volume, self._on_device(keypoints)[None]),
        )

    def retarget(self, source: LivePortraitSource, eyes: Array | float | None, lips: Array | float | None) -> Edit:
        """Build the edit that sets the opening ratios of eyes and lips: a number applies on top of the motion's own
        expression; ratios (T,) of a driving video replace it. None: no retargeting (section 3.3)."""

        def edit(motion: Motion, frame: int) -> Motion:
            expression, retarget = motion.expression.copy(), motion.retarget.copy()
            for column, (wanted, keypoints) in enumerate(((eyes, EYE_KEYPOINTS), (lips, LIP_KEYPOINTS))):
                if isinstance(wanted, np.ndarray):
                    now = np.minimum(frame + np.arange(len(motion)), len(wanted) - 1)
                    expression[:, keypoints] = source.rest.expression[:, keypoints]
                    retarget[:, column] = wanted[now]
                elif wanted is not None:
                    retarget[:, column] = wanted
            return replace(motion, expression=expression, retarget=retarget)

        return edit

    def render(self, source: LivePortraitSource, motion: Motion, *, paint_mouth: bool = True) -> Iterator[Image]:
        """Generate one RGB frame (512, 512, 3) per frame of motion; paint_mouth makes no difference. Raises InputError
        for another keypoint space."""
        motion.require_space(self.space)
        return self._generator.generate(source.appearance, self.driving_keypoints(source, motion))

    def isolate(self, source: LivePortraitSource, foreground: Image) -> LivePortraitSource:
        """Return the source unchanged: the generator draws a person best before the source's own background."""
        return source

    def matte(self, source: LivePortraitSource, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Segment the generated face (512, 512, 3) into foreground colours and alpha matte; the
        source's matte cannot be warped along."""
        return isolate(face)

    def driving_keypoints(self, source: LivePortraitSource, motion: Motion) -> Tensor:
        """Compute driving keypoints (T, 21, 3): stitching (section 3.2), then eye and lip retargeting (section 3.3)."""
        driving = self._on_device(project(source.canonical, limit_shift(motion, source.rest)))
        driving = stitch(self._networks, source.appearance.keypoints, driving)
        known = source.keypoints.ravel()
        for network, current, wanted in (
            (self._networks.eyes, source.eyes, motion.retarget[:, 0]),
            (self._networks.lips, [source.lips], motion.retarget[:, 1]),
        ):
            is_asked = np.asarray(wanted >= 0, np.float32)
            if is_asked.any():
                inputs = np.column_stack([np.tile(np.append(known, current), (len(motion), 1)), wanted])
                offsets = rearrange(network(self._on_device(inputs)), "t (k xyz) -> t k xyz", xyz=3)
                driving = driving + rearrange(self._on_device(is_asked), "t -> t 1 1") * offsets
        return driving

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """Extract the motion of a driving video's face frame by frame, all through one crop: the mean of all frames'.

        This takes a first pass over the video. Of an iterator, which allows one pass, it is the crop of the first face.
        Frames before the first face repeat its motion; frames where the face is lost are logged. Raises InputError for
        a video without a face.
        """
        leading, film, square = (self._first_square if isinstance(frames, Iterator) else self._mean_square)(frames)
        to_picture = square.to_picture(SIDE_PX)
        for frame in film:
            motion = decode_motion(self._networks.motion(self._network_input(warp_crop(frame, to_picture))))
            motion = replace(motion, framing="driving")
            for _ in range(leading + 1):
                yield motion
            leading = 0

    def _first_square(self, frames: Iterable[Image]) -> tuple[int, Iterable[Image], Region]:
        """Return the number of frames before the first face, the frames from it on, and its crop."""
        tracked, film = tee(frames)
        faces = self._tracker.follow_driving(tracked)
        before, square = next((before, driving_square(face.landmarks)) for before, face in enumerate(faces) if face)
        film = islice(film, before, None)
        rest = (frame for _, frame in zip(faces, film, strict=True))
        return before, chain([next(film)], rest), square

    def _mean_square(self, frames: Iterable[Image]) -> tuple[int, Iterable[Image], Region]:
        """Return the same with the mean crop of all frames in which the face is found."""
        faces = self._tracker.follow_driving(frames)
        squares = [face and driving_square(face.landmarks) for face in faces]
        before = next(number for number, square in enumerate(squares) if square)
        return before, islice(frames, before, None), mean_square(square for square in squares if square)

    def _network_input(self, face: Image) -> Tensor:
        """Convert a face (S, S, 3) to the networks' input (1, 3, 256, 256), 0..1."""
        small = np.asarray(cv2.resize(face, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA), np.float32)
        return self._on_device(rearrange(small / np.float32(255), "h w c -> 1 c h w"))

    def _on_device(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._generator.device)


def decode_motion(raw: RawMotion) -> Motion:
    """Decode the motion extractor's outputs for B images to motion of B frames."""
    angles = torch.cat([decode_angle(raw.yaw), decode_angle(raw.pitch), decode_angle(raw.roll)], dim=1)
    scale, pose, shift, expression = (part.cpu().numpy() for part in (raw.scale, angles, raw.t, raw.exp))
    return Motion(scale, pose, shift, rearrange(expression, "b (k xyz) -> b k xyz", xyz=3), LIVEPORTRAIT_SPACE)


def limit_shift(motion: Motion, rest: Motion) -> Motion:
    """Compress the head's translation from the source (rest, T = 1) softly to MAX_SHIFT by tanh, as stitching keeps
    the neck in place."""
    offset = (motion.shift - rest.shift) / MAX_SHIFT
    return replace(motion, shift=rest.shift + MAX_SHIFT * np.tanh(offset))


def stitch(networks: Networks, source: Tensor, driving: Tensor) -> Tensor:
    """Stitch driving keypoints (T, 21, 3) to the source's (1, 21, 3), so that the crop's border stays in place (arXiv
    2407.03168, section 3.2)."""
    pairs = rearrange([source.expand_as(driving), driving], "pair t k xyz -> t (pair k xyz)")
    offsets: Tensor = networks.stitching(pairs)
    points = rearrange(offsets[:, :-2], "t (k xyz) -> t k xyz", xyz=3)
    shift = torch.nn.functional.pad(offsets[:, -2:], (0, 1))
    return driving + points + rearrange(shift, "t xyz -> t 1 xyz")
