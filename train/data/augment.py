"""Augment the sound of shards for training: speed, room, colour, noise, and less look-ahead of the audio encoder.

A copy is the same face with sound as another voice in another room would have it, encoded with a random right context,
so that a motion model learns from few speakers, and serves sound that is not there yet.
"""

from __future__ import annotations

import glob
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kdtalker.audio.encoders import encode_all
from kdtalker.audio.whisper import RIGHT_FRAMES, WhisperEncoder
from kdtalker.core.arrays import Array
from kdtalker.core.files import write_atomically
from kdtalker.core.protocols import AudioEncoder
from kdtalker.core.rates import SAMPLE_RATE_HZ
from train.data.shards import Shard

SPEED = (0.88, 1.14)  # pitch and formants move with it, from a lower to a higher voice
REVERBERATION_SHARE, REVERBERATION_S = 0.3, (0.1, 0.5)  # share of the copies in a room; its decay time (RT60)
COLOUR = (-0.6, 0.6)  # coefficient of a first-order filter: duller or brighter than the microphone was
NOISE_SHARE, NOISE_DB = 0.5, (8.0, 35.0)  # share of the copies with white noise; how far it lies below the sound


def resample_frames(series: Array, speed: float) -> Array:
    """Resample a series (T, C) linearly to play `speed` times as fast: (T / speed, C)."""
    places = np.arange(int(len(series) / speed)) * speed
    left = np.minimum(places.astype(int), len(series) - 1)
    right = np.minimum(left + 1, len(series) - 1)
    share = (places - left)[:, None].astype(np.float32)
    return np.asarray((1 - share) * series[left] + share * series[right], np.float32)


def perturb_sound(samples: Array, rng: np.random.Generator) -> Array:
    """Add reverberation, change the colour and add noise to sound (N,) at 16 kHz; its peak stays as it was."""
    peak = float(np.abs(samples).max())
    if rng.random() < REVERBERATION_SHARE:
        samples = _reverberate(samples, float(rng.uniform(*REVERBERATION_S)), rng)
    samples = samples + np.float32(rng.uniform(*COLOUR)) * np.append(np.float32(0), samples[:-1])
    if rng.random() < NOISE_SHARE:
        level = float(np.sqrt((samples**2).mean())) * 10 ** (-float(rng.uniform(*NOISE_DB)) / 20)
        samples = samples + np.float32(level) * rng.standard_normal(len(samples), np.float32)
    return np.asarray(samples * (peak / max(float(np.abs(samples).max()), 1e-6)), np.float32)


def _reverberate(samples: Array, decay_s: float, rng: np.random.Generator) -> Array:
    """Convolve with an impulse response of exponentially decaying noise, as loud as the direct sound in all."""
    from scipy.signal import fftconvolve

    time_s = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    response = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    response *= float(rng.uniform(0.2, 1)) / float(np.linalg.norm(response))
    response[0] = 1
    return np.asarray(fftconvolve(samples, response)[: len(samples)], np.float32)


def draw_copy(shard: Shard, copy: int) -> tuple[float, int, np.random.Generator]:
    """Draw speed and right context of augmented copy number `copy` of a shard; return them and the generator of the
    rest."""
    rng = np.random.default_rng((zlib.crc32(shard.name.encode()), copy))
    return float(rng.uniform(*SPEED)), int(rng.integers(0, RIGHT_FRAMES + 1)), rng


def augment_sound(shard: Shard, speed: float, rng: np.random.Generator) -> Array:
    """Return the sound (N / speed,) of a shard as another voice in another room would have it."""
    return perturb_sound(resample_frames(shard.sound.astype(np.float32)[:, None], speed)[:, 0], rng)


def load_augmented(shard: Shard, encoder: AudioEncoder[Any], folder: Path, copy: int) -> tuple[Array, float]:
    """Load features (T, C) float16 of augmented copy number `copy` of a shard, as a view of its file in `folder`, which
    is made where it is missing or of other sound, and the speed at which its motion is to be resampled."""
    speed, right_frames, rng = draw_copy(shard, copy)
    path = folder / f"{shard.name}_{copy}_{zlib.crc32(shard.sound.tobytes()):08x}.npy"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        for stale in folder.glob(f"{glob.escape(shard.name)}_{copy}_????????.npy"):
            stale.unlink()
        if isinstance(encoder, WhisperEncoder):
            encoder = WhisperEncoder(encoder.network, encoder.mel_filters, right_frames)
        encoded = encode_all(encoder, augment_sound(shard, speed, rng)).astype(np.float16)
        write_atomically(path, lambda file: np.save(file, encoded))
    features: Array = np.load(path, mmap_mode="r")
    return features, speed
