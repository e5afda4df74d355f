"""What a portrait does beside what was sampled, and how strongly: the Options as edits, in the order they follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from kdtalker.audio import FRAME_RATE_HZ
from kdtalker.edits import expressed, lips_met, posed, region, resting, still, stronger
from kdtalker.errors import InputError
from kdtalker.eyes import closing, gaze
from kdtalker.moods import MOODS
from kdtalker.motion import Array, Motion, rotation_matrix
from kdtalker.options import Options
from kdtalker.renderer import Anatomy, Looks, Source
from kdtalker.voice import Voice

MET_S = 0.28  # in which lips that the photograph shows parted may be shut
ASSUMED_S = 0.8  # in which a film goes over from the photograph to the pose and the look that are asked for
PARTED = 0.04  # inner lips of a photograph that are apart, in outer eye distances
BROWS_RISE = 0.45  # of --brow 1, at the strongest emphasis


def check(options: Options, anatomy: Anatomy) -> None:
    """Raise InputError for what the engine's keypoints cannot show."""
    unknown = set() if anatomy.looks is not None else {"blink", "gaze", "emphasis", "smile", "brow", "emotion"}
    for name in sorted(name for name in unknown if getattr(options, name) != getattr(Options, name)):
        raise InputError(
            f"Option '{name}' is {getattr(options, name)!r}, but which of this engine's keypoints would show it is not "
            "known; leave it out or choose the engine 'mesh'."
        )


def edited(motion: Motion, source: Source, anatomy: Anatomy, options: Options, *, frame: int) -> Motion:
    """The motion, from frame on, with the strengths, the pose and the look that were asked for."""
    rest, mood = source.rest, MOODS[options.emotion]
    motion = stronger(motion, rest, options.expression * mood.expression, options.head * mood.head)
    motion = region(motion, rest, anatomy.mouth, options.mouth)
    motion = region(motion, rest, anatomy.eyes, options.eyes)
    motion = still(motion, rest) if options.still else motion
    share = assumed(options, frame, len(motion))
    turn = np.array([options.yaw, options.pitch + mood.pitch_deg, options.roll], np.float32)
    if turn.any():
        motion = posed(motion, np.asarray(motion.pose + share[:, None] * turn, np.float32))
    if looks := anatomy.looks:
        smile = options.smile + mood.smile
        for amount, offset in (
            (max(smile, 0.0), looks.smile),
            (max(-smile, 0.0), looks.sulk),
            (options.brow + mood.brow, looks.brow),
            (mood.frown, looks.frown),
            (mood.lids, in_head(source.shut, rest)),
        ):
            motion = expressed(motion, offset, amount * share) if amount else motion
    return motion


def performed(
    motion: Motion, source: Source, anatomy: Anatomy, options: Options, *, frame: int, voice: Voice
) -> Motion:
    """`edited`, and what comes from the voice and from life: brows, a face that rests in silence, blinks, gaze."""
    looks, begun = anatomy.looks, assumed(options, frame, len(motion))
    if looks is None:
        return edited(motion, source, anatomy, options, frame=frame)
    motion = edited(resting(motion, begun * voice.hush), source, anatomy, options, frame=frame)
    free = assumed(options, frame, len(motion), MET_S)
    motion = lips_met(motion, looks, free * voice.hush, free, parted(source.rest, looks))
    motion = expressed(motion, looks.brow, BROWS_RISE * options.emphasis * begun * voice.emphasis)
    shut = closing(options.seed, options.blink, frame, len(motion))
    motion = expressed(motion, in_head(source.shut, source.rest), shut)
    away = (motion.pose - source.rest.pose)[:, :2]
    return motion.looking(gaze(options.gaze, options.seed, frame, away))


def assumed(options: Options, frame: int, length: int, within_s: float = ASSUMED_S) -> Array:
    """(length,) 0 at the film's first frame, which is the photograph, to 1 after a time."""
    if options.absolute:
        return np.ones(length, np.float32)
    progress = np.clip((frame + np.arange(length)) / (within_s * FRAME_RATE_HZ), 0, 1)
    return np.asarray(progress**2 * (3 - 2 * progress), np.float32)


def parted(rest: Motion, looks: Looks) -> float:
    """0 for a face that is photographed with shut lips to 1 for one whose lips are PARTED."""
    apart = float((looks.gaps @ in_head(rest.expression[0], rest).ravel()).mean())
    return min(max(apart / PARTED, 0.0), 1.0)


def in_head(offset: Array, rest: Motion) -> Array:
    """An offset (21, 3) of the photograph's expression in the head's own axes."""
    turned: Array = offset @ rotation_matrix(rest.pose)[0].T
    return turned


def led(film: Iterable[Motion], relative: Callable[[Motion, Motion, Motion], Motion], rest: Motion) -> Iterator[Motion]:
    """The frames of a film one at a time, led from `rest`, and for ever: forward, backward, forward again."""
    known: list[Motion] = []
    first = None
    for motion in film:
        first = motion[:1] if first is None else first
        moved = relative(motion, first, rest)
        for frame in range(len(moved)):
            known.append(moved[frame : frame + 1])
            yield known[-1]
    order = [*range(len(known) - 2, 0, -1), *range(len(known))]
    while known:
        yield from (known[frame] for frame in order)
