"""The published renderer: LivePortrait's networks (arXiv 2407.03168) behind the protocol that the mesh one meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from kdtalker.backdrop import isolate
from kdtalker.errors import InputError
from kdtalker.liveportrait import SPACE
from kdtalker.liveportrait.canvas import SIDE_PX, cut_out, upright_square
from kdtalker.liveportrait.motion_extractor import RawMotion, degrees
from kdtalker.liveportrait.networks import Networks
from kdtalker.liveportrait.openings import eye_ratios, lip_ratio
from kdtalker.liveportrait.painter import Appearance, Painter
from kdtalker.liveportrait.regions import EYE_KEYPOINTS, LIP_KEYPOINTS
from kdtalker.motion import KEYPOINTS, Array, Motion, project
from kdtalker.pipeline import Edit
from kdtalker.renderer import Anatomy, Image
from kdtalker.tracker import FaceTracker

INPUT_PX = 256
AJAR = 0.03  # ratio of the lips from which a photographed mouth counts as open
FARTHEST_SHIFT = 0.3  # of the square's half side: towards this the head's way from its place in the photograph is bent


@dataclass(frozen=True)
class LivePortraitSource:
    """A face, encoded: a `Source`, what the painter needs of it, and how far eyes and lips are open, as ratios: left
    and right lid gap over eye width (2,), inner lip gap over mouth width.

    `rest` is the photograph's motion, but for a mouth that the photograph holds open: at rest it is shut. `shut` is
    nothing, for the published motion model blinks by itself. keypoints (21, 3) are those of `photographed`.
    """

    canonical: Array
    rest: Motion
    photographed: Motion
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

    space = SPACE
    anatomy = Anatomy(mouth=_only(LIP_KEYPOINTS), eyes=_only(EYE_KEYPOINTS))

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
        photographed, canonical = decode(raw), raw.kp.cpu().numpy().reshape(KEYPOINTS, 3)
        keypoints = project(canonical, photographed)[0]
        source = LivePortraitSource(
            canonical=canonical,
            rest=photographed,
            photographed=photographed,
            shut=np.zeros((KEYPOINTS, 3), np.float32),
            keypoints=keypoints,
            eyes=eyes,
            lips=lips,
            appearance=self._painter.prepare(
                self._networks.appearance(self._seen(face)), self._on_device(keypoints)[None]
            ),
        )
        if lips < AJAR:
            return source
        closing = self.retarget_lips(source, np.zeros(1, np.float32))
        return replace(source, rest=replace(photographed, expression=photographed.expression + closing))

    def retargeting(self, source: LivePortraitSource, eyes: Array | float | None, lips: Array | float | None) -> Edit:
        """The edit that opens eyes and lips as far as wanted: a number is added to what they do; the ratios (T,) of
        another film's frames take the place of it."""

        def edit(motion: Motion, frame: int) -> Motion:
            expression = motion.expression.copy()
            for wanted, keypoints, opened in (
                (eyes, EYE_KEYPOINTS, self.retarget_eyes),
                (lips, LIP_KEYPOINTS, self.retarget_lips),
            ):
                if isinstance(wanted, float):
                    expression += opened(source, np.full(1, wanted, np.float32))
                elif wanted is not None:
                    now = np.minimum(frame + np.arange(len(motion)), len(wanted) - 1)
                    expression[:, keypoints] = source.rest.expression[:, keypoints]
                    expression += opened(source, wanted[now])
            return replace(motion, expression=expression)

        return edit

    def retarget_eyes(self, source: LivePortraitSource, wanted: Array) -> Array:
        """What to add to the expression at rest for each wanted ratio (T,) of the lids: (T, 21, 3)."""
        known = np.tile(np.concatenate([source.keypoints.ravel(), source.eyes]), (len(wanted), 1))
        moved = self._networks.eyes(self._on_device(np.column_stack([known, wanted])))
        return _as_expression(source, moved)

    def retarget_lips(self, source: LivePortraitSource, wanted: Array) -> Array:
        """What to add to the expression at rest for each wanted ratio (T,) of the lips: (T, 21, 3)."""
        known = np.tile(np.append(source.keypoints.ravel(), source.lips), (len(wanted), 1))
        moved = self._networks.lips(self._on_device(np.column_stack([known, wanted])))
        already = source.rest.expression - source.photographed.expression
        return np.asarray(_as_expression(source, moved) - already, np.float32)

    def render(self, source: LivePortraitSource, motion: Motion) -> Iterator[Image]:
        """One (512, 512, 3) RGB frame for each of the motion's. Raises InputError for another keypoint space."""
        if motion.space != self.space:
            raise InputError(
                f"The motion lives in the keypoint space '{motion.space}', this renderer draws '{self.space}'; "
                "make the motion with the same engine."
            )
        return self._painter.paint(source.appearance, self.driving_keypoints(source, motion))

    def isolate(self, source: LivePortraitSource, foreground: Image) -> LivePortraitSource:
        """Keep the source: the generator paints the person best before the background of the photograph."""
        return source

    def matte(self, source: LivePortraitSource, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Segment the painted face (512, 512, 3) into foreground colours and alpha matte: the generator, unlike a warp,
        carries no matte along."""
        return isolate(face)

    def driving_keypoints(self, source: LivePortraitSource, motion: Motion) -> Tensor:
        """Where the keypoints go in each of T frames, stitched to the photograph (section 3.2): (T, 21, 3)."""
        driving = self._on_device(project(source.canonical, damped(motion, source.rest)))
        return stitched(self._networks, source.appearance.keypoints, driving)

    def track(self, frames: Iterable[Image]) -> Iterator[Motion]:
        """The motion of a film's face, one frame a piece, seen through the square around the first one that is found;
        frames before it show what that one shows. Raises InputError for a film without a face."""
        square, waiting = None, 0
        for frame in frames:
            if square is None:
                face = next(iter(self._tracker.find(frame)), None)
                if face is None:
                    waiting += 1
                    continue
                square = upright_square(face).to_picture(SIDE_PX)
            motion = decode(self._networks.motion(self._seen(cut_out(frame, square))))
            for _ in range(waiting + 1):
                yield motion
            waiting = 0
        if square is None:
            raise InputError("No face was found in the driving film; wanted one that looks roughly into the camera.")

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
    return Motion(scale, pose, shift, expression.reshape(-1, KEYPOINTS, 3), SPACE)


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


def _as_expression(source: LivePortraitSource, moved: Tensor) -> Array:
    """Ways of keypoints (T, 63) in the picture as what an expression gains (T, 21, 3), whose unit the scale is."""
    ways: Array = moved.cpu().numpy().reshape(-1, KEYPOINTS, 3)
    return np.asarray(ways / source.rest.scale[0, 0], np.float32)
