"""Close lips: in silence, where they almost meet, and where the source image shows them parted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.core.protocols import ExpressionBasis
from kdtalker.edits.basic import in_head

NEARLY_MET = 0.08  # inner lips less apart than this, in outer eye distances, are on their way to meet

PRESS = 0.022  # by which parted lips are pressed on one another, in the same unit


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


MET_S = 0.28  # in which lips that the photograph shows parted may be shut

PARTED = 0.04  # inner lips of a photograph that are apart, in outer eye distances


def parted(rest: Motion, basis: ExpressionBasis) -> float:
    """0 for a face that is photographed with shut lips to 1 for one whose lips are PARTED."""
    apart = float((basis.lip_gap_jacobian @ in_head(rest.expression[0], rest).ravel()).mean())
    return min(max(apart / PARTED, 0.0), 1.0)
