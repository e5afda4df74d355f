"""Encode sound with Wav2Lip's audio encoder (arXiv 2008.10010, section 3.2), as the published KDTalker model does: 512
numbers a frame from the 16 columns of a mel spectrogram around it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from kdtalker.audio.blocks import BlockEncoder, BlockSpan
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from kdtalker.weights.strict import Find, load_strictly, rename_entry

FEATURE_SIZE = 512  # numbers a frame

MEL_BANDS, WINDOW, HOP = 80, 800, 200  # samples

LOWEST_HZ, HIGHEST_HZ = 55, 7600  # the range of the mel bands

PRE_EMPHASIS = 0.97  # coefficient of the high-pass filter

COLUMNS_PER_FRAME = 16  # the network sees this many mel columns for a frame

COLUMN_RATE_HZ = SAMPLE_RATE_HZ // HOP

FRAMES_BEFORE = 2  # the columns of a frame begin this many frames before it

COLUMNS_BEFORE_BLOCK = 7  # the first frame of a block sees this many columns from before it

# Inputs, outputs, kernel, stride (mel, time), padding; a layer with as many outputs as inputs adds its input.
LAYERS = (
    (1, 32, 3, (1, 1), 1),
    (32, 32, 3, (1, 1), 1),
    (32, 32, 3, (1, 1), 1),
    (32, 64, 3, (3, 1), 1),
    (64, 64, 3, (1, 1), 1),
    (64, 64, 3, (1, 1), 1),
    (64, 128, 3, (3, 3), 1),
    (128, 128, 3, (1, 1), 1),
    (128, 128, 3, (1, 1), 1),
    (128, 256, 3, (3, 2), 1),
    (256, 256, 3, (1, 1), 1),
    (256, 512, 3, (1, 1), 0),
    (512, 512, 1, (1, 1), 0),
)

_PREFIX, _ENCODER = "module.", "module.audio_encoder."


class ConvBlock(nn.Module):
    """Convolution, batch norm, a residual connection where the shape stays, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int], padding: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.conv_block = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        self.is_residual = inputs == outputs and kernel == 3

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_block(x)
        return F.relu(h + x if self.is_residual else h)


class Wav2LipNetwork(nn.Module):
    """Encode mel columns (N, 1, 80, 16) into features (N, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = nn.Sequential(*(ConvBlock(*layer) for layer in LAYERS))

    def forward(self, mel: Tensor) -> Tensor:
        out: Tensor = self.audio_encoder(mel)
        return out.flatten(1)


def rename_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the names of the published checkpoint's audio encoder (in its `state_dict` entry) to ours, to be loaded
    strictly. Raises InputError where there is none."""
    renamed = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_ENCODER)}
    if not renamed:
        raise InputError(f"The checkpoint holds no names that begin with '{_ENCODER}', wanted Wav2Lip's.")
    return renamed


@cache
def _mel_filters() -> Array:
    """Return the Slaney mel filter bank (80, 401)."""
    from librosa.filters import mel

    filters: Array = mel(sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=MEL_BANDS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
    return filters


@cache
def _hann() -> Array:
    """Return the periodic Hann window (800,)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return np.asarray(window, np.float32)


def emphasise(samples: Array, last: float | np.float32) -> Array:
    """Pre-emphasise samples (N,): y[n] = x[n] - 0.97 x[n - 1]; `last` is the sample before the first."""
    before = np.concatenate([np.full(1, last, np.float32), samples[:-1]])
    return np.asarray(samples - np.float32(PRE_EMPHASIS) * before, np.float32)


def mel_columns(emphasised: Array, count: int) -> Array:
    """Compute mel columns (count, 80) of pre-emphasised samples, the first window at their start: decibels above -20,
    with -100 ... 0 scaled to -4 ... 4."""
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, WINDOW)[::HOP][:count]
    magnitude = np.abs(np.fft.rfft(windows * _hann(), axis=1)).astype(np.float32)
    decibels = 20 * np.log10(np.maximum(1e-5, magnitude @ _mel_filters().T)) - 20
    columns: Array = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4).astype(np.float32)
    return columns


def column_indices(first_frame: int, frames: int, last_column: int | None) -> NDArray[np.intp]:
    """Return the column indices (frames, 16) that each frame sees, clamped to the ends of the sound."""
    firsts = np.array([first_column(first_frame + frame) for frame in range(frames)])
    wanted: NDArray[np.intp] = np.maximum(firsts[:, None] + np.arange(COLUMNS_PER_FRAME), 0)
    return wanted if last_column is None else np.minimum(wanted, last_column)


def first_column(frame: int) -> int:
    """Return the first of the 16 columns that a frame sees; negative before the sound."""
    return int(COLUMN_RATE_HZ * (frame - FRAMES_BEFORE) / FRAME_RATE_HZ)


class Wav2LipEncoder(BlockEncoder[None]):
    """Encode a frame as 512 numbers from the 16 mel columns around it, in blocks of one second."""

    feature_size = FEATURE_SIZE
    block_frames = 25
    last_block_frames = 28  # with the frames that the look-ahead of 1600 samples has begun
    left_samples = COLUMNS_BEFORE_BLOCK * HOP + WINDOW // 2 + 1  # and a sample for the pre-emphasis
    right_samples = 1600

    def __init__(self, network: Wav2LipNetwork) -> None:
        self._network = network.eval().requires_grad_(False)

    def start_carry(self) -> None:
        return None

    def encode_block(self, carry: None, samples: Array, block: BlockSpan) -> tuple[Array, None]:
        first, start = block.first_frame, block.first_frame * SAMPLES_PER_FRAME - self.left_samples + 1
        end = (first + block.frames) * SAMPLES_PER_FRAME if block.is_last else None
        emphasised = emphasise(samples[1:], samples[0])
        if end is not None:
            emphasised[end - start :] = 0
        wanted = column_indices(first, block.frames, None if end is None else end // HOP)
        low, high = int(wanted.min()), int(wanted.max())
        columns = mel_columns(emphasised[low * HOP - WINDOW // 2 - start :], high - low + 1)
        seen = torch.from_numpy(rearrange(columns[wanted - low], "t columns bands -> t 1 bands columns").copy())
        features: Array = self._network(seen).numpy()
        return features, None


def load_wav2lip(find: Find) -> Wav2LipEncoder:
    """Load the audio encoder on the CPU. Raises InputError where its weights are missing or damaged."""
    path = find("wav2lip.pth")
    state = rename_entry(rename_published, path, "state_dict")
    return Wav2LipEncoder(load_strictly(Wav2LipNetwork, state, path))
