"""The published renderer: LivePortrait's networks (arXiv 2407.03168) behind the protocol that the mesh one meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, tee

import cv2
import numpy as np
import torch
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
from kdtalker.renderers.liveportrait.canvas import SIDE_PX, cut_out
from kdtalker.renderers.liveportrait.crops import driving_square, mean_square
from kdtalker.renderers.liveportrait.executor import Appearance, Painter
from kdtalker.renderers.liveportrait.nets.motion_extractor import RawMotion, degrees
from kdtalker.renderers.liveportrait.networks import Networks
from kdtalker.renderers.liveportrait.regions import EYE_KEYPOINTS, LIP_KEYPOINTS

INPUT_PX = 256
AJAR = 0.03  # ratio of the lips from which a photographed mouth counts as open
FARTHEST_SHIFT = 0.3  # of the square's half side: towards this the head's way from its place in the photograph is bent


@dataclass(frozen=True)
class LivePortraitSource:
    """A face, encoded: a `Source`, what the painter needs of it, and how far eyes and lips are open, as ratios: left
    and right lid gap over eye width (2,), inner lip gap over mouth width.

    `rest` is the photograph's motion; in relative mode a mouth that is open in it is retargeted to a shut one. `shut`
    is nothing, for the published motion model blinks by itself. keypoints (21, 3) are those of `rest`.
    """

    canonical: Array
    rest: Motion
    shut: Array
    keypoints: Array
    eyes: Array
    lips: float
    appearance: Appearance


def _only(keypoints: tuple[int, ...]) -> Array:
    """(21, 21): an expression as far as it moves these keypoints."""
    return np.diag(np.isin(np.arange(KEYPOINTS), keypoints)).astype(np.float32)


class LivePortraitRenderer:
    """Draws faces of 512 x 512 px in the keypoint space "liveportrait"."""

    space = LIVEPORTRAIT_SPACE
    expression_model = ExpressionModel(mouth=_only(LIP_KEYPOINTS), eyes=_only(EYE_KEYPOINTS))

    def __init__(self, networks: Networks, painter: Painter, tracker: FaceTracker) -> None:
        self._networks, self._painter, self._tracker = networks, painter, tracker

    def encode_source(self, face: Image) -> LivePortraitSource:
        """(512, 512, 3) RGB, one face upright in it, to what `render` needs. Raises InputError without a face."""
        if face.shape != (SIDE_PX, SIDE_PX, 3):
            raise InputError(f"The face's picture has the shape {face.shape}, wanted ({SIDE_PX}, {SIDE_PX}, 3).")
        found = self._tracker.find(face)
        if not found:
            raise InputError("No face was found in the square around it; give a sharper picture.")
        eyes, lips = eye_ratios(found[0].landmarks), lip_ratio(found[0].landmarks)
        raw = self._networks.motion(self._seen(face))
        wanted = np.array([[NOT_RETARGETED, 0 if lips >= AJAR else NOT_RETARGETED]], np.float32)
        rest, canonical = replace(decode(raw), retarget=wanted), raw.kp.cpu().numpy().reshape(KEYPOINTS, 3)
        keypoints = project(canonical, rest)[0]
        volume = self._networks.appearance(self._seen(face))
        return LivePortraitSource(
            canonical=canonical,
            rest=rest,
            shut=np.zeros((KEYPOINTS, 3), np.float32),
            keypoints=keypoints,
            eyes=eyes,
            lips=lips,
            appearance=self._painter.prepare(volume, self._on_device(keypoints)[None]),
        )

    def retargeting(self, source: LivePortraitSource, eyes: Array | float | None, lips: Array | float | None) -> Edit:
        """The edit that opens eyes and lips as far as wanted: a number is added to what they do; the ratios (T,) of
        another film's frames take the place of it."""

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

    def render(self, source: LivePortraitSource, motion: Motion) -> Iterator[Image]:
        """One (512, 512, 3) RGB frame for each of the motion's. Raises InputError for another keypoint space."""
        motion.require_space(self.space)
        return self._painter.paint(source.appearance, self.driving_keypoints(source, motion))

    def isolate(self, source: LivePortraitSource, foreground: Image) -> LivePortraitSource:
        """Keep the source: the generator paints the person best before the background of the photograph."""
        return source

    def matte(self, source: LivePortraitSource, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Segment the painted face (512, 512, 3) into foreground colours and alpha matte: the generator, unlike a warp,
        carries no matte along."""
        return isolate(face)

    def driving_keypoints(self, source: LivePortraitSource, motion: Motion) -> Tensor:
        """Where the keypoints go in each of T frames: stitched to the photograph (section 3.2), then eyes and lips
        retargeted (section 3.3). (T, 21, 3)."""
        driving = self._on_device(project(source.canonical, damped(motion, source.rest)))
        driving = stitched(self._networks, source.appearance.keypoints, driving)
        known = source.keypoints.ravel()
        for network, now, wanted in (
            (self._networks.eyes, source.eyes, motion.retarget[:, 0]),
            (self._networks.lips, [source.lips], motion.retarget[:, 1]),
        ):
            is_asked = np.asarray(wanted >= 0, np.float32)
            if is_asked.any():
                inputs = np.column_stack([np.tile(np.append(known, now), (len(motion), 1)), wanted])
                moved = network(self._on_device(inputs)).view_as(driving)
                driving = driving + self._on_device(is_asked)[:, None, None] * moved
        return driving

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """The motion of a film's face, one frame a piece, seen through one square: the mean of all frames' squares.

        For that the film is looked through beforehand. Of an iterator, which cannot be looked through twice, it is the
        square of the first face. Frames before the first face show what that one shows; those where it is lost are
        logged. Raises InputError for a film without a face.
        """
        waiting, film, square = (self._first_face if isinstance(frames, Iterator) else self._mean_face)(frames)
        to_picture = square.to_picture(SIDE_PX)
        for frame in film:
            motion = decode(self._networks.motion(self._seen(cut_out(frame, to_picture))))
            motion = replace(motion, framing="driving")
            for _ in range(waiting + 1):
                yield motion
            waiting = 0

    def _first_face(self, frames: Iterable[Image]) -> tuple[int, Iterable[Image], Region]:
        """How many frames come before the first face, those from it on, and its square."""
        seen, film = tee(frames)
        faces = self._tracker.follow_driving(seen)
        before, square = next((before, driving_square(face.landmarks)) for before, face in enumerate(faces) if face)
        film = islice(film, before, None)
        rest = (frame for _, frame in zip(faces, film, strict=True))
        return before, chain([next(film)], rest), square

    def _mean_face(self, frames: Iterable[Image]) -> tuple[int, Iterable[Image], Region]:
        """As `_first_face`, but the mean square of all frames in which the face is found."""
        faces = self._tracker.follow_driving(frames)
        squares = [face and driving_square(face.landmarks) for face in faces]
        before = next(number for number, square in enumerate(squares) if square)
        return before, islice(frames, before, None), mean_square(square for square in squares if square)

    def _seen(self, face: Image) -> Tensor:
        """(S, S, 3) to what the networks look at: (1, 3, 256, 256), 0..1."""
        small = np.asarray(cv2.resize(face, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA), np.float32)
        return self._on_device((small / np.float32(255)).transpose(2, 0, 1)[None])

    def _on_device(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._painter.device)


def decode(raw: RawMotion) -> Motion:
    """The extractor's numbers for B pictures as a motion of B frames."""
    angles = torch.cat([degrees(raw.yaw), degrees(raw.pitch), degrees(raw.roll)], dim=1)
    scale, pose, shift, expression = (part.cpu().numpy() for part in (raw.scale, angles, raw.t, raw.exp))
    return Motion(scale, pose, shift, expression.reshape(-1, KEYPOINTS, 3), LIVEPORTRAIT_SPACE)


def damped(motion: Motion, rest: Motion) -> Motion:
    """The motion with a head that stays near its place in the photograph, for the neck is sewn on there: its way from
    it is bent, from the same for a small one to FARTHEST_SHIFT for a long one."""
    away = (motion.shift - rest.shift) / FARTHEST_SHIFT
    return replace(motion, shift=rest.shift + FARTHEST_SHIFT * np.tanh(away))


def stitched(networks: Networks, source: Tensor, driving: Tensor) -> Tensor:
    """Driving keypoints (T, 21, 3) moved so that the square's border fits the photograph; source (1, 21, 3)."""
    pairs = torch.cat([source.expand_as(driving).flatten(1), driving.flatten(1)], dim=1)
    moved: Tensor = networks.stitching(pairs)
    points, shift = moved[:, :-2].reshape(driving.shape), torch.nn.functional.pad(moved[:, -2:], (0, 1))
    return driving + points + shift[:, None]
