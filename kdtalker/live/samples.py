"""Queues of samples, and the resampler that makes 16 kHz of them for the audio encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLE_RATE_HZ

RESAMPLER_LAG_S = 0.065  # at most: soxr's quality "LQ" answers after 61 ms at 8 kHz, after 20 to 28 ms above 16 kHz


class SampleQueue:
    """Queue samples in one block of memory, whatever the pieces in which they came."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data) // 4

    def append(self, samples: Array) -> None:
        """Add samples (N,), float32."""
        self._data += samples.tobytes()

    def read(self, count: int) -> Array:
        """Remove and return the first samples: `count`, or all where there are fewer."""
        samples = np.frombuffer(bytes(self._data[: 4 * count]), np.float32)
        del self._data[: 4 * count]
        return samples

    def peek(self, count: int) -> Array:
        """Return the first samples: `count`, or all where there are fewer."""
        return np.frombuffer(bytes(self._data[: 4 * count]), np.float32)


class HearingResampler:
    """Resample a stream to 16 kHz: sample m of the output is at the time of sample m * rate / 16000 of the input."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._taken = self._given = 0
        self._stream: Any = None
        if rate != SAMPLE_RATE_HZ:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32", quality="LQ")

    def advance(self, samples: Array, *, last: bool = False) -> Array:
        """Take samples (N,); return the samples at 16 kHz that became final. last: the sound ends, all samples still
        owed are returned: ceil(N * 16000 / rate) in all."""
        if self._stream is None:
            return samples
        self._taken += len(samples)
        heard = np.asarray(self._stream.resample_chunk(samples, last=last), np.float32)
        if last:
            owed = -(-self._taken * SAMPLE_RATE_HZ // self._rate) - self._given
            heard = np.pad(heard[:owed], (0, max(0, owed - len(heard))))
        self._given += len(heard)
        return heard


def resampler_lag(rate: int) -> int:
    """Return the most samples at a rate by which the resampler lags."""
    return 0 if rate == SAMPLE_RATE_HZ else round(RESAMPLER_LAG_S * rate)
