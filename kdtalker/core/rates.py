"""Sample rate, frame rate, and the conversion between them."""

from __future__ import annotations

SAMPLE_RATE_HZ = 16_000

FRAME_RATE_HZ = 25

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ


def frame_count(samples: int) -> int:
    """Count the 25 fps frames of a sound: ceil(samples / 640); the last one may be filled in part."""
    return -(-samples // SAMPLES_PER_FRAME)
