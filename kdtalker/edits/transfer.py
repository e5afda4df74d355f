"""Transfer motion to a source: relative to its first frame, with rotations composed, or of the head alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.motion import Motion, pose_of_rotation, rotation_matrix
from kdtalker.core.protocols import Engine, SourceT
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.basic import turn_head

FADE_S = 0.4  # transition from the source pose to generated motion


def start_from(motion: Motion, *, rest: Motion, first: Motion, frame: int) -> Motion:
    """Fade generated motion in from the source pose: the difference of frame 0 from `rest` fades out over FADE_S.

    frame: number of the first frame of `motion`; first: frame 0 (T = 1). The scale is the source's throughout.
    """
    frames = frame + np.arange(len(motion))
    progress = np.clip(frames / (FADE_S * FRAME_RATE_HZ), 0, 1)[:, None]
    fade = 1 - progress**2 * (3 - 2 * progress)
    vector = motion.vector() + fade * (_exact(rest) - _exact(first))
    vector[:, 0] = rest.scale
    return Motion.from_vector(vector.astype(np.float32), motion.space)


def transfer_relative(motion: Motion, *, first: Motion, rest: Motion) -> Motion:
    """Transfer driving motion relative to its first frame: the difference from `first` (T = 1) is added to `rest`.

    Angles are added; scale is a ratio, which also scales the shift (after LivePortrait, arXiv 2407.03168, section 3.3).
    """
    ratio = rest.scale.astype(np.float64) / first.scale
    vector = motion.vector() + (_exact(rest) - _exact(first))
    vector[:, :1] = motion.scale * ratio
    vector[:, 4:7] = motion.shift * ratio + (rest.shift - first.shift * ratio)
    return replace(Motion.from_vector(vector.astype(np.float32), motion.space), gaze=motion.gaze, breath=motion.breath)


def transfer_rotations(motion: Motion, *, first: Motion, rest: Motion) -> Motion:
    """Transfer driving motion relative to its first frame by composing rotations: R = R_d R_d0^T R_s.

    The shift keeps its length, or is scaled by the size of the face where the two faces were cropped differently. Eyes
    and lips are retargeted as in `motion`, or else as in `rest` (LivePortrait, arXiv 2407.03168, section 3.3).
    """
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


def replace_head(motion: Motion, head: Motion) -> Motion:
    """Replace pose and shift by those of another motion of the same length; the expression turns with the head."""
    return replace(turn_head(motion, head.pose), shift=head.shift)


def _exact(motion: Motion) -> NDArray[np.float64]:
    """Return the motion vectors (T, 70) in float64, so that differences of float32 numbers are exact."""
    return motion.vector().astype(np.float64)


def ping_pong(motions: Iterable[Motion]) -> Iterator[Motion]:
    """Yield the frames (T = 1) of a motion for ever: forward, backward, forward again."""
    known: list[Motion] = []
    for motion in motions:
        for frame in range(len(motion)):
            known.append(motion[frame : frame + 1])
            yield known[-1]
    order = [*range(len(known) - 2, 0, -1), *range(len(known))]
    while known:
        yield from (known[frame] for frame in order)
