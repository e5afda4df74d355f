"""Sound in: any file → 16 kHz mono in chunks, and the log-mel spectrogram that can be fed in pieces.

The mel is Whisper's ("Robust speech recognition via large-scale weak supervision", section 2.2): windows of
25 ms every 10 ms, 80 Slaney bands, logarithm limited to 8 decades below the loudest. The loudest of live sound
is not known yet, a running level stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME

MEL_BANDS = 80

MEL_WINDOW = 400  # samples

MEL_HOP = 160  # samples

MEL_COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // MEL_HOP

MEL_BLOCK_FRAMES = 16  # the mel advances by blocks of this many 25 fps frames, however the sound is cut

MEL_BLOCK_COLUMNS = MEL_BLOCK_FRAMES * MEL_COLUMNS_PER_FRAME

MEL_SILENCE = -10.0  # log10 of the smallest power

_LEVEL_FLOOR = -1.5

_LEVEL_FALL = 0.05  # a block

_BLOCK_SAMPLES = MEL_BLOCK_COLUMNS * MEL_HOP

_BLOCK_REACH = _BLOCK_SAMPLES - MEL_HOP + MEL_WINDOW  # samples that the windows of one block touch


@dataclass(frozen=True)
class MelState:
    """Where the mel stands: the samples (N,) that blocks still need, the running level (log10 of power)."""

    pending: Array
    level: float


def start_mel(lead_frames: int) -> MelState:
    """The state before the first sample; the first block begins with that many frames of silence."""
    lead_samples = lead_frames * SAMPLES_PER_FRAME + MEL_WINDOW // 2
    return MelState(np.zeros(lead_samples, np.float32), _LEVEL_FLOOR)


def advance_mel(state: MelState, samples: Array, filters: Array) -> tuple[list[tuple[Array, float]], MelState]:
    """Take samples (N,) in; give each finished block, log10 of mel power (80, 64), with the level after it.

    Column c of the sound is centred at sample 160·c. Each block is computed alone and from the same number of
    samples, so its bits do not depend on how the sound was cut. filters: (80, 201).
    """
    waiting = np.concatenate([state.pending, np.asarray(samples, np.float32)])
    level, start, blocks = state.level, 0, []
    while start + _BLOCK_REACH <= len(waiting):
        block = log_mel(waiting[start : start + _BLOCK_REACH], filters)
        level = max(float(block.max()), level - _LEVEL_FALL, _LEVEL_FLOOR)
        blocks.append((block, level))
        start += _BLOCK_SAMPLES
    return blocks, MelState(waiting[start:].copy(), level)


def log_mel(samples: Array, filters: Array) -> Array:
    """log10 of the mel power of windows that lie wholly inside the samples: (80, 1 + (N - 400) // 160)."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::MEL_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)
    spectrum = np.fft.rfft(windows * hann, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = filters.astype(np.float64) @ power.T
    logarithm: NDArray[np.float64] = np.log10(np.maximum(mel, 10.0**MEL_SILENCE))
    return logarithm.astype(np.float32)


def scale_mel(log_power: Array, level: float) -> Array:
    """What Whisper's encoder reads: at most 8 decades below the level, then roughly -1..1."""
    return ((np.maximum(log_power, level - 8.0) + 4.0) / 4.0).astype(np.float32)
