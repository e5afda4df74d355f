"""Log-mel spectrogram of Whisper (arXiv 2212.04356, section 2.2): windows of 25 ms every 10 ms, 80 Slaney bands, the
logarithm limited to 8 decades below the loudest column. In a live stream the loudest is not known yet: a running level
stands in for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME

MEL_BANDS = 80

MEL_WINDOW = 400  # samples, 25 ms

MEL_HOP = 160  # samples, 10 ms

MEL_COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // MEL_HOP

MEL_OVERHANG = MEL_WINDOW // 2 - MEL_HOP  # samples of the next frame that a frame's last column takes

MEL_SILENCE = -10.0  # log10 of the smallest power

LEVEL_FLOOR = -1.5  # the running level, log10 of power, never falls below this

_LEVEL_FALL = 0.05 / 16  # the running level falls by at most this a frame


def track_level(level: float, log_power: Array) -> float:
    """Update the running level, log10 of power, by new columns (80, L): up at once, down slowly to a floor."""
    frames: int = log_power.shape[1] // MEL_COLUMNS_PER_FRAME
    return max(float(log_power.max()), level - frames * _LEVEL_FALL, LEVEL_FLOOR)


def log_mel(samples: Array, filters: Array) -> Array:
    """Compute log10 of mel power (80, 1 + (N - 400) // 160) of samples (N,), without padding; filters (80, 201)."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::MEL_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)
    spectrum = np.fft.rfft(windows * hann, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = filters.astype(np.float64) @ power.T
    logarithm: NDArray[np.float64] = np.log10(np.maximum(mel, 10.0**MEL_SILENCE))
    return logarithm.astype(np.float32)


def scale_mel(log_power: Array, level: float) -> Array:
    """Limit log mel power to 8 decades below the level and scale it to roughly -1..1, as Whisper's encoder expects."""
    return ((np.maximum(log_power, level - 8.0) + 4.0) / 4.0).astype(np.float32)
