"""One reply (segment): its sound, the part that is heard, its motion and its pictures, all by the number of a frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import Motion
from kdtalker.live.blend import Transition
from kdtalker.live.frames import PictureState, Played
from kdtalker.live.samples import SampleQueue

SILENT_PEAK = 0.01  # sound that may be skipped stays below this, -40 dB of full scale
LATE_FRAMES = 4  # a picture that is so late, 160 ms, is shown where there is no better one


@dataclass(frozen=True)
class Picture:
    """Hold a drawn picture (H, W, 3) and the motion (T = 1) that it shows. frame: of the reply, for which it was drawn;
    None for idle motion, whose pictures are never late."""

    image: Image
    motion: Motion
    state: PictureState = PictureState.NEW
    frame: int | None = None


@dataclass
class Reply:
    """Hold a reply that is waiting or being played. Frame k of it is samples [k * frame_samples, (k + 1) *
    frame_samples); position is the next frame to play, drawn the next to draw."""

    segment: int
    frame_samples: int
    began_s: float  # when its first samples came
    pushed_tick: int  # when its last samples came
    silent_ticks: int = 0  # ticks without a frame of sound since then
    sound: SampleQueue = field(default_factory=SampleQueue)
    unheard: SampleQueue = field(default_factory=SampleQueue)
    pushed: int = 0  # samples
    has_ended: bool = False  # no more sound will come
    is_heard: bool = False  # all motion has been generated
    motion: dict[int, Motion] = field(default_factory=dict)
    guess: dict[int, Motion] = field(default_factory=dict)  # as if no more sound came
    guessed: int = 0  # samples after which the guess was made
    pictures: dict[int, Picture] = field(default_factory=dict)
    late: Picture | None = None  # of a frame that has just been played, to be shown for want of a better one
    position: int = 0
    drawn: int = 0
    is_playing: bool = False
    least_waiting: list[int] = field(default_factory=list)  # samples that waited at the last ticks
    behind: int = 0  # frames to skip in silence
    ready_tick: int | None = None  # from which the picture at `position` has been waiting, while nothing is played
    transition: Transition | None = None  # from idle motion, from a guess, or over a part that was not heard
    last: Motion | None = None  # the motion that was drawn last
    was_guess: bool = False  # whether that was a guess

    def append(self, samples: Array, tick: int, *, is_heard: bool = True) -> None:
        """Add samples (N,); is_heard: False where nobody hears any more, and they are only played."""
        self.sound.append(samples)
        if is_heard:
            self.unheard.append(samples)
        self.pushed += len(samples)
        self.pushed_tick, self.silent_ticks = tick, 0

    @property
    def played(self) -> int:
        """Return the number of samples that have been played."""
        return self.pushed - len(self.sound)

    @property
    def has_sound(self) -> bool:
        """Tell whether the sound of a frame is there: 40 ms, or the last of the reply."""
        return len(self.sound) >= self.frame_samples or (self.has_ended and len(self.sound) > 0)

    @property
    def is_played(self) -> bool:
        """Tell whether the reply has ended and all of it was played."""
        return self.has_ended and not self.sound

    @property
    def frames(self) -> int:
        """Return the number of frames that its sound has so far; an incomplete one counts where the reply has ended."""
        return -(-self.pushed // self.frame_samples) if self.has_ended else self.pushed // self.frame_samples

    @property
    def is_drawn(self) -> bool:
        """Tell whether all pictures of the reply have been drawn."""
        return self.is_heard and self.drawn >= self.frames

    @property
    def newest(self) -> int:
        """Return the last frame whose motion is known and not drawn, -1 for none."""
        return max([*self.motion, *self.guess], default=-1)

    def known(self, frame: int) -> Motion | None:
        """Return the motion (T = 1) of a frame, a guess where its sound is not heard far enough."""
        return self.motion.get(frame, self.guess.get(frame))

    def forget(self, frame: int) -> None:
        """Forget the motion of frames before one, which is the next to be drawn."""
        for number in range(self.drawn, frame):
            self.motion.pop(number, None)
            self.guess.pop(number, None)
        self.drawn = frame

    def forget_unheard(self) -> None:
        """Forget the sound that is not heard yet, and all motion: nothing more is drawn."""
        self.unheard.read(len(self.unheard))
        self.motion.clear()
        self.guess.clear()

    def waits_for_sound(self, need: int) -> bool:
        """Tell whether the next frame can have no motion before more sound comes; need: samples from a frame's first on
        that its motion takes."""
        is_known = self.drawn > self.position or self.known(self.position) is not None
        return not self.has_ended and not is_known and len(self.sound) < need

    def play(self) -> tuple[Array, Picture | None]:
        """Return sound (N,), at most 40 ms, and picture of the next frame."""
        sound, picture = self.sound.read(self.frame_samples), self.pictures.pop(self.position, self.late)
        self.late = None
        self.position += 1
        self.is_playing, self.ready_tick = True, None
        return sound, picture

    def catch_up(self, wanted: int) -> bool:
        """Skip a silent frame of a reply that goes on where more than the wanted number of samples has waited for a
        second, by a frame or more, and the picture after it is ready; returns whether."""
        self.least_waiting = [*self.least_waiting[-24:], len(self.sound)]
        if not self.behind and len(self.least_waiting) == 25:
            self.behind = max(0, min(self.least_waiting) - wanted) // self.frame_samples
        if len(self.sound) < wanted + self.frame_samples:
            self.behind = 0
        if self.has_ended or not self.behind or self.position + 1 not in self.pictures:
            return False
        if np.abs(self.sound.peek(self.frame_samples)).max() > SILENT_PEAK:
            return False
        self.play()
        self.behind -= 1
        self.least_waiting = []
        return True

    def report(self, *, interrupted: bool = False) -> Played:
        """Report what was played."""
        return Played(self.segment, self.played, interrupted)
