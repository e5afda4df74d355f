"""Apply Options to generated motion: strengths, pose, expression, closed lips, procedural nods, blinks and gaze."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.errors import InputError
from kdtalker.core.moods import MOODS
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options, names_of
from kdtalker.core.protocols import ExpressionModel, Prosody, Source
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.basic import add_offset, hold_head, scale_motion, scale_region, to_head_axes, turn_head
from kdtalker.edits.breathing import breathing_curve
from kdtalker.edits.eyes import blink_curve, gaze
from kdtalker.edits.lips import LIP_EASE_IN_S, blend_to_rest, close_lips, measure_parting

EASE_IN_S = 0.8  # transition from the source frame to the pose and expression of the Options
BROW_RAISE = 0.45  # amount of the brow blendshape at the strongest emphasis, for --emphasis 1
NOD_DEG = 4.0  # pitch of the deepest nod, for --emphasis 1
NECK_SHIFT = 0.016  # a face sinks by this much of its scale a degree of pitch: heads turn about the neck (fit to films)


def check_options(options: Options, model: ExpressionModel) -> None:
    """Check that the engine has blendshapes for the options. Raises InputError for one that it lacks."""
    lacking = names_of("Face") if model.basis is None else ()
    for name in sorted(name for name in lacking if getattr(options, name) != getattr(Options, name)):
        raise InputError(
            f"Option '{name}' is {getattr(options, name)!r}, but this engine has no blendshapes to show it; leave it "
            "out or choose the engine 'mesh'."
        )


def add_nods(
    motion: Motion, source: Source, model: ExpressionModel, options: Options, *, frame: int, prosody: Prosody
) -> Motion:
    """Add nods on stressed syllables to generated motion, before its head is scaled, held or replaced. An engine
    without blendshapes draws its motion as generated."""
    if model.basis is None:
        return motion
    pitch_deg = NOD_DEG * options.emphasis * ease_in(options, frame, len(motion)) * prosody.nod
    pose, shift = motion.pose.copy(), motion.shift.copy()
    pose[:, 1] += pitch_deg
    shift[:, 1] += NECK_SHIFT * source.rest.scale[0] * pitch_deg
    return replace(turn_head(motion, pose), shift=shift)


def apply_options(motion: Motion, source: Source, model: ExpressionModel, options: Options, *, frame: int) -> Motion:
    """Apply strengths, pose and expression of the options to motion whose first frame has the number `frame`."""
    rest, mood = source.rest, MOODS[options.emotion]
    motion = scale_motion(motion, rest, options.expression * mood.expression, options.head * mood.head)
    motion = scale_region(motion, rest, model.mouth, options.mouth)
    motion = scale_region(motion, rest, model.eyes, options.eyes)
    motion = hold_head(motion, rest) if options.still else motion
    share = ease_in(options, frame, len(motion))
    turn = np.array([options.yaw, options.pitch + mood.pitch_deg, options.roll], np.float32)
    if turn.any():
        motion = turn_head(motion, np.asarray(motion.pose + share[:, None] * turn, np.float32))
    if basis := model.basis:
        smile = options.smile + mood.smile
        for amount, offset in (
            (max(smile, 0.0), basis.smile),
            (max(-smile, 0.0), basis.sulk),
            (options.brow + mood.brow, basis.brow),
            (mood.frown, basis.frown),
            (mood.lids, to_head_axes(source.shut, rest)),
        ):
            motion = add_offset(motion, offset, amount * share) if amount else motion
    return motion


def add_procedural_motion(
    motion: Motion, source: Source, model: ExpressionModel, options: Options, *, frame: int, prosody: Prosody
) -> Motion:
    """Apply options, then add procedural motion: rest in silence, closed lips, brows by emphasis, blinks, gaze,
    breath.

    An engine without blendshapes draws its motion as generated, with the options alone.
    """
    if model.basis is None:
        return apply_options(motion, source, model, options, frame=frame)
    share = ease_in(options, frame, len(motion))
    motion = blend_to_rest(motion, share * prosody.silence_gate)
    motion = apply_options(motion, source, model, options, frame=frame)
    free = ease_in(options, frame, len(motion), LIP_EASE_IN_S)
    parted = measure_parting(source.rest, model.basis)
    motion = close_lips(motion, model.basis, free * prosody.silence_gate, free, parted)
    motion = add_offset(motion, model.basis.brow, BROW_RAISE * options.emphasis * share * prosody.emphasis)
    blinks = blink_curve(options.seed, options.blink, frame, len(motion))
    motion = add_offset(motion, to_head_axes(source.shut, source.rest), blinks)
    turn = (motion.pose - source.rest.pose)[:, :2]
    breath = (1 - options.still) * breathing_curve(options.seed, frame, len(motion))[:, None]
    return replace(motion, gaze=gaze(options.gaze, options.seed, frame, turn), breath=breath)


def ease_in(options: Options, frame: int, length: int, within_s: float = EASE_IN_S) -> Array:
    """Compute a smoothstep fade-in weight (length,): 0 in frame 0, the source image, to 1 after `within_s`."""
    if options.absolute:
        return np.ones(length, np.float32)
    return smoothstep((frame + np.arange(length)) / (within_s * FRAME_RATE_HZ))
