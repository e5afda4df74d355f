"""Basic edits: pure functions from Motion to Motion. `rest` is the source's own motion (T = 1).

Where nothing is asked for (strength 1, a first frame equal to rest) an edit returns the same numbers, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion, rotation_matrix


def scale_motion(motion: Motion, rest: Motion, expression: float, head: float) -> Motion:
    """Scale the difference from `rest`: the expression's by `expression`, that of pose and shift by `head`."""
    return replace(
        motion,
        pose=motion.pose + (head - 1) * (motion.pose - rest.pose),
        shift=motion.shift + (head - 1) * (motion.shift - rest.shift),
        expression=motion.expression + (expression - 1) * (motion.expression - rest.expression),
    )


def scale_region(motion: Motion, rest: Motion, projection: Array, strength: float) -> Motion:
    """Scale the expression of one region, whose projection (21, 21) is given, in its difference from `rest`."""
    if strength == 1:
        return motion
    away = motion.expression - rest.expression
    return replace(motion, expression=motion.expression + (strength - 1) * np.asarray(projection @ away, np.float32))


def hold_head(motion: Motion, rest: Motion) -> Motion:
    """Hold the head still: scale, pose and shift are those of `rest`."""
    return replace(
        motion,
        scale=np.repeat(rest.scale, len(motion), axis=0),
        pose=np.repeat(rest.pose, len(motion), axis=0),
        shift=np.repeat(rest.shift, len(motion), axis=0),
    )


def turn_head(motion: Motion, pose: Array) -> Motion:
    """Turn the head to pose (T, 3) yaw, pitch, roll in degrees; the expression, in camera axes, turns with it."""
    rotation = rotation_matrix(motion.pose).transpose(0, 2, 1) @ rotation_matrix(pose)
    is_turned = (pose != motion.pose).any(1)[:, None, None]
    expression = np.where(is_turned, motion.expression @ rotation, motion.expression).astype(np.float32)
    return replace(motion, pose=pose, expression=expression)


def add_offset(motion: Motion, offset: Array, amount: Array) -> Motion:
    """Add an expression offset (21, 3), in the head's axes, by amount (T,)."""
    return replace(
        motion, expression=motion.expression + amount[:, None, None] * (offset @ rotation_matrix(motion.pose))
    )


def to_head_axes(offset: Array, rest: Motion) -> Array:
    """Rotate an expression offset (21, 3) of the source from camera axes to the head's axes."""
    rotated: Array = offset @ rotation_matrix(rest.pose)[0].T
    return rotated
