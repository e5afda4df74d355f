"""Edits: pure functions from Motion to Motion. `rest` is always the photograph's own motion, of length 1.

Where nothing is asked for (strength 1, a first frame equal to rest) an edit hands back the same numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdtalker.audio import FRAME_RATE_HZ
from kdtalker.motion import Array, Motion, pose_of_rotation, rotation_matrix
from kdtalker.protocols import Engine, ExpressionBasis, SourceT

FADE_S = 0.4
NEARLY_MET = 0.08  # inner lips less apart than this, in outer eye distances, are on their way to meet
PRESS = 0.022  # by which parted lips are pressed on one another, in the same unit


def start_from(motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
    """Begin at the photograph: what the first sampled frame differs from `rest` by fades out over FADE_S.

    motion holds the frames from `frame` on, `first` is frame 0 (T=1). The scale is the photograph's throughout.
    """
    frames = frame + np.arange(len(motion))
    progress = np.clip(frames / (FADE_S * FRAME_RATE_HZ), 0, 1)[:, None]
    fade = 1 - progress**2 * (3 - 2 * progress)
    vector = motion.vector() + fade * (_exact(rest) - _exact(first))
    vector[:, 0] = rest.scale
    return Motion.from_vector(vector.astype(np.float32), motion.space)


def stronger(motion: Motion, rest: Motion, expression: float, head: float) -> Motion:
    """The distance from `rest` times `expression` for the face and times `head` for pose and shift."""
    return replace(
        motion,
        pose=motion.pose + (head - 1) * (motion.pose - rest.pose),
        shift=motion.shift + (head - 1) * (motion.shift - rest.shift),
        expression=motion.expression + (expression - 1) * (motion.expression - rest.expression),
    )


def region(motion: Motion, rest: Motion, part: Array, strength: float) -> Motion:
    """The part of the face whose share of an expression the matrix (21, 21) gives, `strength` times as far from
    `rest`."""
    if strength == 1:
        return motion
    away = motion.expression - rest.expression
    return replace(motion, expression=motion.expression + (strength - 1) * np.asarray(part @ away, np.float32))


def still(motion: Motion, rest: Motion) -> Motion:
    """Only the face moves: scale, pose and shift are those of `rest`."""
    return replace(
        motion,
        scale=np.repeat(rest.scale, len(motion), axis=0),
        pose=np.repeat(rest.pose, len(motion), axis=0),
        shift=np.repeat(rest.shift, len(motion), axis=0),
    )


def transfer_relative(motion: Motion, *, first: Motion, rest: Motion) -> Motion:
    """A driving motion carried over to the photograph: its difference from its own first frame is added to `rest`.

    `first` is the driving motion's frame 0 (T=1). Scale is carried as a ratio, and with it the length of the shift
    (LivePortrait's relative mode, arXiv 2407.03168; angles are added).
    """
    ratio = rest.scale.astype(np.float64) / first.scale
    vector = motion.vector() + (_exact(rest) - _exact(first))
    vector[:, :1] = motion.scale * ratio
    vector[:, 4:7] = motion.shift * ratio + (rest.shift - first.shift * ratio)
    return replace(Motion.from_vector(vector.astype(np.float32), motion.space), gaze=motion.gaze)


def transfer_rotations(motion: Motion, *, first: Motion, rest: Motion) -> Motion:
    """`transfer_relative` as LivePortrait does it (arXiv 2407.03168, section 3.3): rotations follow one another,
    R = R_d R_d0^T R_s, and the shift keeps its own length, unless the two faces were cropped in different ways: then
    its length goes with the face's size. Eyes and lips are retargeted as `motion` says, or else as `rest` does."""
    away = rotation_matrix(motion.pose) @ rotation_matrix(first.pose).transpose(0, 2, 1)
    turned = np.asarray(away @ rotation_matrix(rest.pose), np.float32)
    length = 1 if motion.framing == rest.framing else rest.scale / first.scale
    return replace(
        motion,
        scale=rest.scale * (motion.scale / first.scale),
        pose=pose_of_rotation(turned),
        shift=rest.shift + length * (motion.shift - first.shift),
        expression=rest.expression + (motion.expression - first.expression),
        retarget=np.where(motion.retarget < 0, rest.retarget, motion.retarget),
        framing=rest.framing,
    )


def transfer_stream(
    engine: Engine[SourceT], driving: Iterable[Motion], rest: Motion, *, absolute: bool
) -> Iterator[Motion]:
    """Transfer driving motion to a source piece by piece, relative to its first frame or absolutely."""
    first = None
    for motion in driving:
        first = motion[:1] if first is None else first
        if absolute:
            yield engine.transfer_absolute(motion, rest=rest)
        else:
            yield engine.transfer(motion, first=first, rest=rest)


def posed(motion: Motion, pose: Array) -> Motion:
    """The same face on a head that is turned to pose (T, 3): the expression turns with it."""
    turn = rotation_matrix(motion.pose).transpose(0, 2, 1) @ rotation_matrix(pose)
    turned = (pose != motion.pose).any(1)[:, None, None]
    return replace(
        motion, pose=pose, expression=np.where(turned, motion.expression @ turn, motion.expression).astype(np.float32)
    )


def expressed(motion: Motion, offset: Array, amount: Array) -> Motion:
    """`offset` (21, 3), in the head's own axes, added to the expression by `amount` (T,)."""
    return replace(
        motion, expression=motion.expression + amount[:, None, None] * (offset @ rotation_matrix(motion.pose))
    )


def resting(motion: Motion, amount: Array) -> Motion:
    """The face at rest, its mouth shut, to a share amount (T,) 0..1."""
    return replace(motion, expression=motion.expression * (1 - amount)[:, None, None])


def lips_met(motion: Motion, basis: ExpressionBasis, amount: Array, free: Array, parted: float) -> Motion:
    """Lips brought together by `amount` (T,) of the way, and, as far as they are `free` (T,) to, where they all but
    meet: what is sampled seldom closes quite. Those of a face that was photographed with parted lips, as far as
    `parted` says 0..1, are pressed on one another to leave no slit."""
    turn = rotation_matrix(motion.pose)
    in_head = (motion.expression @ turn.transpose(0, 2, 1)).reshape(len(motion), -1)
    gaps = in_head @ basis.lip_gap_jacobian.T
    progress = np.clip(gaps.mean(1) / NEARLY_MET, 0, 1)
    share = np.maximum(amount, free * (1 - progress**2 * (3 - 2 * progress)))
    pull = share[:, None] * np.maximum(gaps + PRESS * parted * free[:, None], 0)
    apart = (pull @ basis.lip_gap_inverse.T).reshape(motion.expression.shape) @ turn
    return replace(motion, expression=np.asarray(motion.expression - apart, np.float32))


def with_head(motion: Motion, head: Motion) -> Motion:
    """The face of `motion` on the head of another, in its pose and place."""
    return replace(posed(motion, head.pose), shift=head.shift)


def _exact(motion: Motion) -> NDArray[np.float64]:
    """(T, 70) in float64, in which differences of float32 numbers of one size have no rounding."""
    return motion.vector().astype(np.float64)
