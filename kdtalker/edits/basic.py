"""Edits: pure functions from Motion to Motion. `rest` is always the photograph's own motion, of length 1.

Where nothing is asked for (strength 1, a first frame equal to rest) an edit hands back the same numbers, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion, rotation_matrix


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


def in_head(offset: Array, rest: Motion) -> Array:
    """An offset (21, 3) of the photograph's expression in the head's own axes."""
    turned: Array = offset @ rotation_matrix(rest.pose)[0].T
    return turned
