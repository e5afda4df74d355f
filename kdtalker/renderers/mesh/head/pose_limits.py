"""Limit head pose and gaze softly (tanh compression) to what one source image can be warped to."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import Motion
from kdtalker.edits.basic import turn_head

MAX_TURN_DEG = (30.0, 24.0)  # yaw and pitch relative to the source image's pose
# The limit of yaw shrinks linearly with the source's own, from all of it at the first angle to MIN_YAW_SHARE.
FRONTAL_DEG, PROFILE_DEG = 25.0, 50.0
MIN_YAW_SHARE = 0.2  # of the limit, left for a source in profile
MAX_GAZE_DEG = (14.0, 8.0)  # yaw and pitch of the eyeballs
LINEAR_SHARE = 0.7  # of a limit, up to which values are unchanged
IRIS_RADIUS = 0.12  # distance of the iris from the eyeball's centre, in canonical units


def limit_pose(motion: Motion, rest: Motion) -> Motion:
    """Limit yaw and pitch of a motion softly to MAX_TURN_DEG around the source's own pose `rest` (T = 1)."""
    turn = (motion.pose - rest.pose)[:, :2]
    share = np.clip((PROFILE_DEG - abs(rest.pose[0, 0])) / (PROFILE_DEG - FRONTAL_DEG), MIN_YAW_SHARE, 1)
    limited = soft_limit(turn, (float(share) * MAX_TURN_DEG[0], MAX_TURN_DEG[1]))
    if np.array_equal(limited, turn):
        return motion
    return turn_head(motion, np.concatenate([rest.pose[:, :2] + limited, motion.pose[:, 2:]], axis=1))


def soft_limit(values: Array, limits: tuple[float, ...]) -> Array:
    """Compress values (T, n) into -limit..limit: the identity up to LINEAR_SHARE of it, then a tanh with slope 1 at the
    transition."""
    limit = np.array(limits, np.float32)
    linear = LINEAR_SHARE * limit
    beyond = (limit - linear) * np.tanh((np.abs(values) - linear) / (limit - linear))
    return np.where(np.abs(values) <= linear, values, np.sign(values) * (linear + beyond)).astype(np.float32)


def iris_shift(motion: Motion, side: int) -> Array:
    """Compute the displacement (T, 2) px of the irises for a motion's gaze, in a face crop `side` px wide."""
    yaw, pitch = np.deg2rad(soft_limit(motion.gaze, MAX_GAZE_DEG)).T
    roll = np.deg2rad(motion.pose[:, 2])
    right, down = -np.sin(yaw), np.sin(pitch)
    turned = np.stack([right * np.cos(roll) - down * np.sin(roll), right * np.sin(roll) + down * np.cos(roll)], -1)
    return np.asarray(IRIS_RADIUS * side / 2 * motion.scale * turned, np.float32)
