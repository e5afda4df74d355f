"""Motion of implicit keypoints: the type between the diffusion model and the renderers, and the keypoint formula.

A frame's motion vector has 70 numbers: scale 1, yaw 1, pitch 1, roll 1 (degrees), shift 3, expression 63 (21 x 3).
Three values that no motion model generates travel beside it: gaze, breath, and the eye and lip ratios for retargeting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import AtomicFile
from kdtalker.core.npz import read_npz

KEYPOINTS = 21
MOTION_WIDTH = 1 + 3 + 3 + 3 * KEYPOINTS
MESH_SPACE, LIVEPORTRAIT_SPACE = SPACES = ("mesh", "liveportrait")
FRAMINGS = ("speech", "driving")
NOT_RETARGETED = -1.0
FILE_VERSION = 1

_SHAPES = {"scale": (1,), "pose": (3,), "shift": (3,), "expression": (KEYPOINTS, 3), "gaze": (2,), "retarget": (2,),
           "breath": (1,)}  # fmt: skip
_PLAUSIBLE = {"scale": (0.01, 100), "pose": (-3600, 3600), "shift": (-100, 100), "expression": (-100, 100),
              "gaze": (-3600, 3600), "breath": (-10, 10)}  # fmt: skip
_DEFAULTS = {
    "gaze": 0.0,
    "retarget": NOT_RETARGETED,
    "breath": 0.0,
}  # also of files that were written before these existed


@dataclass(frozen=True)
class Motion:
    """Hold the motion of T frames in one keypoint space.

    scale (T, 1); pose (T, 3) yaw, pitch, roll in degrees; shift (T, 3); expression (T, 21, 3), all float32.
    `space` names the keypoint space ("mesh" or "liveportrait"). gaze (T, 2): yaw and pitch in degrees by which the
    eyes are turned from their direction in the source image, 0 by default. retarget (T, 2):
    eye and lip ratios for LivePortrait's retargeting networks, below 0 for no retargeting. breath (T, 1): rise of the
    chest, 0 by default, 1 at the height of a breath.
    framing: the crop that scale and shift refer to, of the space "liveportrait" alone: KDTalker's ("speech") or
    LivePortrait's ("driving").

    Raises InputError for wrong shapes, unequal lengths, numbers that are not finite, an unknown space or framing.
    """

    scale: Array
    pose: Array
    shift: Array
    expression: Array
    space: str
    gaze: Array = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    retarget: Array = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    framing: str = FRAMINGS[0]
    breath: Array = field(default_factory=lambda: np.zeros((0, 1), np.float32))

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"Motion names the keypoint space '{self.space}', known are {', '.join(SPACES)}.")
        if self.framing not in FRAMINGS:
            raise InputError(f"Motion names the framing '{self.framing}', known are {', '.join(FRAMINGS)}.")
        length = len(np.atleast_1d(self.scale))
        for name, tail in sorted(_SHAPES.items(), key=lambda item: item[0] in _DEFAULTS):
            if name in _DEFAULTS and len(np.atleast_1d(getattr(self, name))) == 0:
                object.__setattr__(self, name, np.full((length, *tail), _DEFAULTS[name], np.float32))
            value = np.asarray(getattr(self, name), dtype=np.float32)
            if value.shape != (length, *tail):
                raise InputError(f"Motion's {name} has the shape {value.shape}, wanted {(length, *tail)}.")
            if not np.isfinite(value).all():
                raise InputError(f"Motion's {name} holds numbers that are not finite.")
            object.__setattr__(self, name, value)

    def require_space(self, space: str) -> None:
        """Raise InputError for motion in another keypoint space than that; engines are named after their spaces."""
        if self.space != space:
            raise InputError(
                f"The motion is in the keypoint space '{self.space}', the engine '{space}' cannot draw it; choose "
                f"--engine {self.space}, or make the motion with the engine '{space}'."
            )

    def require_plausible(self, what: str) -> None:
        """Raise InputError where numbers are beyond those of any face, which no renderer could draw; `what` names the
        motion."""
        for name, (least, most) in _PLAUSIBLE.items():
            values = getattr(self, name)
            if len(values) and not (least <= values.min() and values.max() <= most):
                raise InputError(
                    f"{what} has a {name} of {values.min():g} to {values.max():g}, wanted {least:g} to {most:g}."
                )

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, frames: slice) -> Motion:
        parts = {name: getattr(self, name)[frames] for name in _SHAPES}
        return Motion(**parts, space=self.space, framing=self.framing)

    def with_gaze(self, gaze: Array) -> Motion:
        """Replace the gaze by (T, 2) yaw and pitch in degrees."""
        return replace(self, gaze=gaze)

    def vector(self) -> Array:
        """Return motion vectors (T, 70) in the order scale, yaw, pitch, roll, shift, expression."""
        return np.concatenate(
            [self.scale, self.pose, self.shift, self.expression.reshape(len(self), 3 * KEYPOINTS)], axis=1
        )

    @staticmethod
    def from_vector(vector: Array, space: str) -> Motion:
        """Build a Motion from motion vectors (T, 70), the inverse of `vector`; its gaze is 0."""
        if vector.ndim != 2 or vector.shape[1] != MOTION_WIDTH:
            raise InputError(f"A motion vector has the shape {vector.shape}, wanted (frames, {MOTION_WIDTH}).")
        scale, pose, shift, expression = np.split(vector, [1, 4, 7], axis=1)
        return Motion(scale, pose, shift, expression.reshape(-1, KEYPOINTS, 3), space)

    @staticmethod
    def concatenate(parts: Sequence[Motion]) -> Motion:
        """Concatenate motions of one keypoint space and framing. Raises InputError for others, or for none."""
        kinds = {(part.space, part.framing) for part in parts}
        if len(kinds) != 1:
            raise InputError(
                f"Motions to join must share one keypoint space and framing, found {sorted(kinds) or 'none'}."
            )
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SHAPES}
        ((space, framing),) = kinds
        return Motion(**joined, space=space, framing=framing)

    def save(self, path: Path) -> None:
        """Write the motion as .npz: its fields and the version of the format, at 25 frames a second.

        Raises InputError or OutputError where it cannot be written.
        """
        with AtomicFile(path) as file:
            self.write(file)
            file.commit()

    def write(self, file: AtomicFile) -> None:
        """Write the .npz under the file's temporary name, to be committed later. Raises OutputError."""
        try:
            with file.partial.open("wb") as content:
                values = {name: getattr(self, name) for name in _SHAPES}
                np.savez_compressed(content, version=FILE_VERSION, space=self.space, framing=self.framing, **values)
        except OSError as error:
            raise OutputError(f"The motion '{file.path}' could not be written ({error.strerror}); make room.") from None

    @staticmethod
    def load(path: Path) -> Motion:
        """Read a motion file (.npz) that `save` wrote. Raises InputError for anything else."""
        wanted = {*_SHAPES, "space", "version"} - set(_DEFAULTS)  # older files have not all of these
        values = read_npz(path, (*_SHAPES, "version"), text=("space", "framing"), aligned=_SHAPES)
        lacking = sorted(wanted - set(values))
        if lacking:
            raise InputError(f"'{path}' lacks {lacking[0]}, wanted a motion of this program (.npz from --save-motion).")
        space, version = (str(values.pop(name))[:40] for name in ("space", "version"))
        if version != f"{FILE_VERSION:.1f}":
            raise InputError(f"'{path}' has the motion format {version}, this program reads {FILE_VERSION}.")
        framing = str(values.pop("framing", FRAMINGS[0]))[:40]  # which older files have not
        try:
            motion = Motion(**values, space=space, framing=framing)
        except InputError as error:
            raise InputError(f"'{path}' is not a motion of this program: {error}") from None
        motion.require_plausible(f"The motion '{path}'")
        return motion


def rotation_matrix(pose: Array) -> Array:
    """Compute rotation matrices (T, 3, 3) from yaw, pitch, roll (T, 3) in degrees: R = (Rz Ry Rx)^T, for row vectors,
    `points @ R`."""
    yaw, pitch, roll = np.deg2rad(np.asarray(pose, np.float64)).T
    one, zero = np.ones_like(yaw), np.zeros_like(yaw)

    def matrix(*rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    cx, sx, cy, sy, cz, sz = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    about_x = matrix([one, zero, zero], [zero, cx, -sx], [zero, sx, cx])
    about_y = matrix([cy, zero, sy], [zero, one, zero], [-sy, zero, cy])
    about_z = matrix([cz, -sz, zero], [sz, cz, zero], [zero, zero, one])
    return np.asarray((about_z @ about_y @ about_x).transpose(0, 2, 1), np.float32)


def pose_of_rotation(rotation: Array) -> Array:
    """Compute yaw, pitch, roll (T, 3) in degrees from rotation matrices (T, 3, 3), |yaw| < 90; inverts
    `rotation_matrix`."""
    matrix = np.asarray(rotation, np.float64).transpose(0, 2, 1)
    yaw = np.arcsin(np.clip(-matrix[:, 2, 0], -1, 1))
    pitch = np.arctan2(matrix[:, 2, 1], matrix[:, 2, 2])
    roll = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
    return np.asarray(np.rad2deg(np.stack([yaw, pitch, roll], -1)), np.float32)


def project(canonical: Array, motion: Motion) -> Array:
    """Project keypoints into the image: x = scale (x_c R + expression) + shift, without the depth of the shift.

    canonical (21, 3) to (T, 21, 3), in the units of the face square (LivePortrait, arXiv 2407.03168, eq. 2).
    """
    points: Array = motion.scale[:, None] * (canonical @ rotation_matrix(motion.pose) + motion.expression)
    points[..., :2] += motion.shift[:, None, :2]
    return points


def to_head_frame(motion: Motion) -> Motion:
    """Rotate the expression from camera axes to the head's axes."""
    return replace(motion, expression=motion.expression @ rotation_matrix(motion.pose).transpose(0, 2, 1))


def from_head_frame(motion: Motion) -> Motion:
    """Rotate the expression from the head's axes to camera axes; inverts `to_head_frame`."""
    return replace(motion, expression=motion.expression @ rotation_matrix(motion.pose))
