"""Transitions in motion space: speech, pauses and idle motion follow one another without a jump."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdtalker.core.arrays import smoothstep
from kdtalker.core.motion import Motion

FACE_FRAMES = 5  # 200 ms: expression and gaze are those of the new motion
HEAD_FRAMES = 12  # the head, and the chest, take longer


@dataclass(frozen=True)
class Transition:
    """Fade from one motion (T = 1), held, to another that begins at frame `start` of its own count."""

    held: Motion
    start: int

    def is_over(self, frame: int) -> bool:
        """Tell whether a frame is that of the new motion alone."""
        return frame - self.start + 1 >= HEAD_FRAMES

    def blend(self, motion: Motion, frame: int) -> Motion:
        """Blend frame number `frame` of the new motion (T = 1)."""
        age = frame - self.start + 1
        if age >= HEAD_FRAMES:
            return motion
        face, head = (float(1 - smoothstep(age / frames)) for frames in (FACE_FRAMES, HEAD_FRAMES))
        shares = {"expression": face, "gaze": face, "scale": head, "pose": head, "shift": head, "breath": head}
        values = {name: getattr(motion, name) for name in shares}
        return replace(
            motion,
            **{name: value + shares[name] * (getattr(self.held, name) - value) for name, value in values.items()},
        )
