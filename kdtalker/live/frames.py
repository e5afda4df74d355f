"""Frames of a live session, the record of a reply that was played, and counters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kdtalker.core.arrays import Array, Image


class Activity(Enum):
    """Tell what a frame shows: speech, a gap within a reply whose sound ran out, or idle motion."""

    SPEECH = "speech"
    PAUSE = "pause"
    IDLE = "idle"


class PictureState(Enum):
    """Name the origin of a frame's picture: drawn for it; drawn without the mouth painter, or up to 160 ms late; or
    shown before."""

    NEW = "new"
    DEGRADED = "degraded"
    REPEATED = "repeated"


@dataclass(frozen=True)
class Played:
    """Report a reply (segment, counted from 0) that has left the session: samples that were played, at the session's
    rate, and whether it was cut off by an interruption."""

    segment: int
    samples: int
    interrupted: bool


@dataclass(frozen=True)
class LiveFrame:
    """Hold one frame of 40 ms.

    index: ticks since the session began; its sound begins at sample index * sample_rate // 25 of the output.
    picture (H, W, 3) uint8 RGB, read-only. sound (sample_rate // 25,) float32 at the session's rate, zeros where nobody
    speaks. segment: number of the reply whose sound this is, or None. generation: number of interruptions so far.
    ended: replies that have been played to their end with this frame. position: samples of the segment before this
    frame, those among them that were skipped; 0 where nobody speaks. picture_age: frames since the one that the picture
    was drawn for, 0 where that is this one.
    """

    index: int
    picture: Image
    sound: Array
    activity: Activity
    picture_state: PictureState
    segment: int | None
    generation: int
    ended: tuple[Played, ...] = ()
    position: int = 0
    picture_age: int = 0


@dataclass(frozen=True)
class LiveStats:
    """Count what a session has done.

    new, degraded, repeated: frames taken, by their picture; dropped: pictures of speech that were not drawn, or too
    late; skipped: silent frames of a microphone by which a delay was made up. interrupts; waiting_s: sound that waits
    to be played. hear_ms, draw_ms: running means of the time that motion takes a frame, and a picture.
    first_frame_ms: from the first sample of the last reply to the frame that began it.
    """

    new: int = 0
    degraded: int = 0
    repeated: int = 0
    dropped: int = 0
    skipped: int = 0
    interrupts: int = 0
    waiting_s: float = 0.0
    hear_ms: float = 0.0
    draw_ms: float = 0.0
    first_frame_ms: float | None = None
