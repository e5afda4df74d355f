"""Close lips: the one home of lip closure.

Order, in every frame of speech (`perform.add_procedural_motion`):
1. `blend_to_rest`: in silence the whole face goes to rest, by the silence gate;
2. strengths and poses of the Options (`perform.apply_options`);
3. `close_lips`: by the silence gate, and where the lips almost meet.
The renderer then only keeps lips from passing through one another.

All lip gaps are between pairs of points on the inner lips, in outer-eye distances: the distance between the outer eye
corners is 1. A face whose lips are closed in its keypoint space's neutral expression has gaps of 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.core.protocols import ExpressionBasis
from kdtalker.edits.basic import to_head_axes

CLOSE_THRESHOLD = 0.08  # lips with a smaller mean gap are closing: generated motion seldom closes them completely
PRESS = 0.022  # lips that the source image shows parted are pressed together by this, so that no slit is left
PARTED = 0.04  # a source image with this mean gap or more shows parted lips
SHUT_THRESHOLD = 0.03  # tracked lips with a smaller gap are closed: the threshold of the metrics
LIP_EASE_IN_S = 0.28  # transition from the source frame to closed lips


def blend_to_rest(motion: Motion, amount: Array) -> Motion:
    """Blend the expression to the neutral one, its mouth closed, by amount (T,) 0..1."""
    return replace(motion, expression=motion.expression * (1 - amount)[:, None, None])


def close_lips(motion: Motion, basis: ExpressionBasis, silence_gate: Array, free: Array, parted: float) -> Motion:
    """Pull lip gaps to zero by silence_gate (T,) 0..1, and below CLOSE_THRESHOLD as far as `free` (T,) 0..1 allows.

    The offset is the likeliest expression that makes the gaps (MAP estimate, `ExpressionBasis.lip_gap_inverse`).
    parted 0..1: how far the source image shows parted lips; they are pressed together by PRESS.
    """
    rotation = rotation_matrix(motion.pose)
    in_head = (motion.expression @ rotation.transpose(0, 2, 1)).reshape(len(motion), 1, -1)
    gaps = (in_head @ basis.lip_gap_jacobian.T)[:, 0]  # frame by frame: to the bit the same, however many there are
    closing = 1 - smoothstep(gaps.mean(1) / CLOSE_THRESHOLD)
    share = np.maximum(silence_gate, free * closing)
    pull = share[:, None] * np.maximum(gaps + PRESS * parted * free[:, None], 0)
    offset = (pull[:, None] @ basis.lip_gap_inverse.T).reshape(motion.expression.shape) @ rotation
    return replace(motion, expression=np.asarray(motion.expression - offset, np.float32))


def measure_parting(rest: Motion, basis: ExpressionBasis) -> float:
    """Measure how far a source image shows parted lips: 0 for closed ones to 1 for a mean gap of PARTED or more."""
    gap = float((basis.lip_gap_jacobian @ to_head_axes(rest.expression[0], rest).ravel()).mean())
    return min(max(gap / PARTED, 0.0), 1.0)
