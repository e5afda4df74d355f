"""What a portrait does beside what was sampled, and how strongly: the Options as edits, in the order they follow."""

from __future__ import annotations

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.moods import MOODS
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import ExpressionModel, Prosody, Source
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.edits.basic import expressed, in_head, posed, region, still, stronger
from kdtalker.edits.eyes import closing, gaze
from kdtalker.edits.lips import MET_S, lips_met, parted, resting

ASSUMED_S = 0.8  # in which a film goes over from the photograph to the pose and the look that are asked for

BROWS_RISE = 0.45  # of --brow 1, at the strongest emphasis


def check_options(options: Options, model: ExpressionModel) -> None:
    """Raise InputError for what the engine's keypoints cannot show."""
    unknown = set() if model.basis is not None else {"blink", "gaze", "emphasis", "smile", "brow", "emotion"}
    for name in sorted(name for name in unknown if getattr(options, name) != getattr(Options, name)):
        raise InputError(
            f"Option '{name}' is {getattr(options, name)!r}, but which of this engine's keypoints would show it is not "
            "known; leave it out or choose the engine 'mesh'."
        )


def apply_options(motion: Motion, source: Source, model: ExpressionModel, options: Options, *, frame: int) -> Motion:
    """The motion, from frame on, with the strengths, the pose and the look that were asked for."""
    rest, mood = source.rest, MOODS[options.emotion]
    motion = stronger(motion, rest, options.expression * mood.expression, options.head * mood.head)
    motion = region(motion, rest, model.mouth, options.mouth)
    motion = region(motion, rest, model.eyes, options.eyes)
    motion = still(motion, rest) if options.still else motion
    share = ease_in(options, frame, len(motion))
    turn = np.array([options.yaw, options.pitch + mood.pitch_deg, options.roll], np.float32)
    if turn.any():
        motion = posed(motion, np.asarray(motion.pose + share[:, None] * turn, np.float32))
    if basis := model.basis:
        smile = options.smile + mood.smile
        for amount, offset in (
            (max(smile, 0.0), basis.smile),
            (max(-smile, 0.0), basis.sulk),
            (options.brow + mood.brow, basis.brow),
            (mood.frown, basis.frown),
            (mood.lids, in_head(source.shut, rest)),
        ):
            motion = expressed(motion, offset, amount * share) if amount else motion
    return motion


def add_procedural_motion(
    motion: Motion, source: Source, model: ExpressionModel, options: Options, *, frame: int, prosody: Prosody
) -> Motion:
    """Apply options, then add procedural motion: rest in silence, closed lips, brows by emphasis, blinks, gaze."""
    basis, begun = model.basis, ease_in(options, frame, len(motion))
    if basis is None:
        return apply_options(motion, source, model, options, frame=frame)
    motion = apply_options(resting(motion, begun * prosody.silence_gate), source, model, options, frame=frame)
    free = ease_in(options, frame, len(motion), MET_S)
    motion = lips_met(motion, basis, free * prosody.silence_gate, free, parted(source.rest, basis))
    motion = expressed(motion, basis.brow, BROWS_RISE * options.emphasis * begun * prosody.emphasis)
    shut = closing(options.seed, options.blink, frame, len(motion))
    motion = expressed(motion, in_head(source.shut, source.rest), shut)
    away = (motion.pose - source.rest.pose)[:, :2]
    return motion.looking(gaze(options.gaze, options.seed, frame, away))


def ease_in(options: Options, frame: int, length: int, within_s: float = ASSUMED_S) -> Array:
    """(length,) 0 at the film's first frame, which is the photograph, to 1 after a time."""
    if options.absolute:
        return np.ones(length, np.float32)
    progress = np.clip((frame + np.arange(length)) / (within_s * FRAME_RATE_HZ), 0, 1)
    return np.asarray(progress**2 * (3 - 2 * progress), np.float32)
