"""How far a photograph can be turned and its eyes moved before it shows that it is one."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion
from kdtalker.edits.basic import turn_head

TURN_DEG = (20.0, 15.0)  # yaw and pitch from the photograph's own pose
ASIDE_DEG, PROFILE_DEG = 25.0, 55.0  # a face photographed this far from the front turns less, and hardly at all
LEAST_TURN = 0.15
GAZE_DEG = (14.0, 8.0)
FREE_SHARE = 0.7  # of those, within which nothing is changed
EYE_RADIUS = 0.12  # of an iris about the middle of its eyeball, in canonical units


def within_reach(motion: Motion, rest: Motion) -> Motion:
    """The motion with a head whose turn from `rest` stays within TURN_DEG: beyond a share of that it is bent, smoothly,
    so that it comes near the limit and never there."""
    away = (motion.pose - rest.pose)[:, :2]
    seen = np.clip((PROFILE_DEG - abs(rest.pose[0, 0])) / (PROFILE_DEG - ASIDE_DEG), LEAST_TURN, 1)
    near = softly_limited(away, (float(seen) * TURN_DEG[0], float(seen) * TURN_DEG[1]))
    if np.array_equal(near, away):
        return motion
    return turn_head(motion, np.concatenate([rest.pose[:, :2] + near, motion.pose[:, 2:]], axis=1))


def softly_limited(values: Array, limits: tuple[float, ...]) -> Array:
    """values (T, n), each within -limit..limit: the same up to FREE_SHARE, then bent with a slope that begins at 1."""
    limit = np.array(limits, np.float32)
    free = FREE_SHARE * limit
    beyond = (limit - free) * np.tanh((np.abs(values) - free) / (limit - free))
    return np.where(np.abs(values) <= free, values, np.sign(values) * (free + beyond)).astype(np.float32)


def iris_way(motion: Motion, side: int) -> Array:
    """(T, 2) px by which the irises move in a picture `side` px wide."""
    yaw, pitch = np.deg2rad(softly_limited(motion.gaze, GAZE_DEG)).T
    roll = np.deg2rad(motion.pose[:, 2])
    right, down = -np.sin(yaw), np.sin(pitch)
    turned = np.stack([right * np.cos(roll) - down * np.sin(roll), right * np.sin(roll) + down * np.cos(roll)], -1)
    return np.asarray(EYE_RADIUS * side / 2 * motion.scale * turned, np.float32)
