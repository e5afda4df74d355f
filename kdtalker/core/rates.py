"""Sample rate, frame rate, and the conversion between them."""

from __future__ import annotations

SAMPLE_RATE_HZ = 16_000

FRAME_RATE_HZ = 25

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ


def frame_count(samples: int) -> int:
    """How many 25 fps frames a sound of that many samples lasts: the last one may be begun only."""
    return -(-samples // SAMPLES_PER_FRAME)
