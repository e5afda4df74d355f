"""Hold the sound of training clips, to encode any window of it as live sound is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdtalker.audio.mel import LEVEL_FLOOR, MEL_COLUMNS_PER_FRAME, MEL_OVERHANG, MEL_WINDOW, log_mel, track_level
from kdtalker.audio.whisper import SlidingWhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME

_LEFT_SAMPLES = MEL_WINDOW - MEL_OVERHANG  # before a window, that its first column and the one before it take


@dataclass(frozen=True)
class ClipSound:
    """Hold the sound of a clip, samples (640 T,) float16, and levels (T,), the running level of its log-mel before each
    frame."""

    samples: Array
    levels: Array

    @staticmethod
    def of(samples: Array, filters: Array) -> ClipSound:
        """Track the level of samples (640 T,)."""
        padded = np.pad(samples.astype(np.float32), (MEL_WINDOW // 2, MEL_OVERHANG))
        columns, levels, level = log_mel(padded, filters), [], LEVEL_FLOOR
        for first in range(0, columns.shape[1] - MEL_COLUMNS_PER_FRAME + 1, MEL_COLUMNS_PER_FRAME):
            levels.append(level)
            level = track_level(level, columns[:, first : first + MEL_COLUMNS_PER_FRAME])
        return ClipSound(samples.astype(np.float16), np.array(levels, np.float32))

    def encode(self, network: SlidingWhisperEncoder, end: int) -> Array:
        """Encode the window (F, C) that ends before frame `end`, silence before the clip."""
        frames = network.window_frames
        first = (end - frames) * SAMPLES_PER_FRAME - _LEFT_SAMPLES
        samples = self.samples[max(0, first) : end * SAMPLES_PER_FRAME].astype(np.float32)
        samples = np.pad(samples, (end * SAMPLES_PER_FRAME - first - len(samples), 0))
        level = float(self.levels[end - frames]) if end >= frames else LEVEL_FLOOR
        state = replace(network.start(), samples=samples[:_LEFT_SAMPLES], level=level)
        return network.slide(state, samples[_LEFT_SAMPLES:])[0]
