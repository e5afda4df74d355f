"""Sound in: any file → 16 kHz mono in chunks, and the log-mel spectrogram that can be fed in pieces.

The mel is Whisper's ("Robust speech recognition via large-scale weak supervision", section 2.2): windows of
25 ms every 10 ms, 80 Slaney bands, logarithm limited to 8 decades below the loudest. The loudest of live sound
is not known yet, a running level stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.errors import InputError
from kdtalker.ffmpeg_process import FFmpegProcess, sound_track

Array = NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ

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


def frame_count(samples: int) -> int:
    """How many 25 fps frames a sound of that many samples lasts: the last one may be begun only."""
    return -(-samples // SAMPLES_PER_FRAME)


def read_sound(path: Path, start_s: float = 0.0, duration_s: float | None = None) -> Iterator[Array]:
    """Decode the first sound track of any media file, or the part of it that begins at start_s and lasts at most
    duration_s: chunks (≤ 16000,) of mono at 16 kHz, within -1..1.

    What is not a number becomes silence; a track that begins after the film is preceded by silence. Raises
    InputError, at the latest with the first chunk, where there is no file, no sound track or no sound in it.
    """
    check_file(path, "a sound or a film with sound")
    track = sound_track(path, SAMPLE_RATE_HZ, start_s)
    if duration_s is not None:
        track = track.filter("atrim", end_sample=max(1, round(duration_s * SAMPLE_RATE_HZ)))
    output = track.output("pipe:", format="f32le", ac=1, ar=SAMPLE_RATE_HZ)
    given = 0
    with FFmpegProcess(output, feed=False) as decoder:
        while content := decoder.pipe.read(4 * SAMPLE_RATE_HZ):
            samples = np.frombuffer(content, "<f4", count=len(content) // 4)
            given += len(samples)
            yield np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)
        failed = decoder.wait() != 0
        if failed and given:
            raise InputError(f"'{path}' breaks off after {given / SAMPLE_RATE_HZ:.1f} s of sound ({decoder.reason()}).")
        if not given:
            raise InputError(_why_no_sound(path, start_s))


def check_file(path: Path, wanted: str) -> None:
    """Raise InputError where the path is not a file with something in it, saying what was wanted there."""
    try:
        empty = path.stat().st_size == 0
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no valid name"
        raise InputError(f"'{path}' cannot be opened ({reason}), wanted {wanted}.") from None
    if not path.is_file():
        raise InputError(f"'{path}' is not a file, wanted {wanted}.")
    if empty:
        raise InputError(f"'{path}' is empty (0 bytes), wanted {wanted}.")


def _why_no_sound(path: Path, start_s: float) -> str:
    import av

    try:
        with av.open(f"file:{path.absolute()}") as container:
            tracks = len(container.streams.audio)
    except (av.FFmpegError, OSError):
        return f"'{path}' is not a sound or film that can be decoded, wanted wav, mp3, m4a, ogg, flac, mp4 or such."
    if not tracks:
        return f"'{path}' has no sound track, wanted a sound or a film with sound."
    if start_s:
        return f"'{path}' has no sound from {start_s:g} s on, wanted a start before its end."
    return f"'{path}' has a sound track of zero length, wanted at least one sample."


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
