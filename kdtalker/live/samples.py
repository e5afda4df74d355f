"""Queues of samples, and the resampler that makes 16 kHz of them for the audio encoder."""

from __future__ import annotations

from collections import deque

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLE_RATE_HZ


class SampleQueue:
    """Queue samples; any number is read at a time."""

    def __init__(self) -> None:
        self._pieces: deque[Array] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, samples: Array) -> None:
        """Add samples (N,)."""
        if len(samples):
            self._pieces.append(samples)
            self._count += len(samples)

    def read(self, count: int) -> Array:
        """Remove and return the first samples: `count`, or all where there are fewer."""
        parts = []
        count = min(count, self._count)
        self._count -= count
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            parts.append(piece)
            count -= len(piece)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class HearingResampler:
    """Resample a stream to 16 kHz: sample m of the output is at the time of sample m * rate / 16000 of the input."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._taken = self._given = 0
        self._stream = None
        if rate != SAMPLE_RATE_HZ:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")

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


def check_samples(samples: Array, rate: int) -> Array:
    """Return a clean copy of samples (N,) as float32 within -1..1. Raises InputError for anything but mono sound of
    floating-point numbers."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise InputError(f"Sound has the shape {samples.shape}, wanted (samples,): mono at {rate} Hz.")
    if samples.dtype.kind != "f":
        raise InputError(
            f"Sound has numbers of the type {samples.dtype}, wanted float32 from -1 to 1: divide int16 by 32768."
        )
    clean: Array = np.clip(np.nan_to_num(np.array(samples, np.float32)), -1, 1)
    return clean
