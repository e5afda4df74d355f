"""Convert sound between float32 samples and 16-bit PCM, little-endian (s16le).

The scale is 32768 both ways, the only one by which 16-bit sound comes back as it was; +1 becomes 32767.
"""

from __future__ import annotations

import io
import wave

import numpy as np

from kdtalker.core.arrays import Array

PCM_SCALE = 32768


def decode_pcm(content: bytes | memoryview) -> Array:
    """Decode s16le, an even number of bytes, to float32 samples (N,), -1..1."""
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(PCM_SCALE)


def encode_pcm(samples: Array) -> bytes:
    """Encode samples (N,) as s16le; those beyond -1..1 are clipped."""
    return np.clip(np.rint(samples * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype("<i2").tobytes()


def encode_wav(samples: Array, rate_hz: int) -> bytes:
    """Encode samples (N,) as a mono WAV file of s16le."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(encode_pcm(samples))
    return content.getvalue()
