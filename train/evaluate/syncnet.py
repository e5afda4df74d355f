"""Compute LSE-C and LSE-D with SyncNet ("Out of time", Chung and Zisserman 2016), where its weights are given.

The layout follows descriptions of the published file `syncnet_v2.model`, the inputs follow the paper. MFCC are checked
against python_speech_features; neither the weights nor reference values were available, so the results are UNVERIFIED.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.media.video import read_video
from kdtalker.weights.pth import read_pth
from kdtalker.weights.table import SYNCNET
from train.evaluate.metrics import MetricSpec
from train.evaluate.tracked import TrackedVideo

FRAMES, SIDE_PX, LARGEST_OFFSET_FRAMES, BATCH = 5, 224, 15, 16
CEPSTRA, COLUMNS, COLUMNS_PER_FRAME = 13, 20, 4
MEL_BANDS, FFT_SIZE = 26, 512
BOX_SIDE = 1.5  # side of the crop relative to the box of the face
SOURCE = "Chung and Zisserman 2016; Wav2Lip, arXiv 2008.10010; unverified"
LSE = (
    MetricSpec("LSE-C", "distance", "higher",
         "how far the least distance of LSE-D lies below the median over those offsets", SOURCE, needs=SYNCNET),
    MetricSpec("LSE-D", "distance", "lower",
         "mean distance of SyncNet's features of lips and sound, the least over offsets within 15 frames", SOURCE,
         needs=SYNCNET),
)  # fmt: skip


def _pool(kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Module:
    return nn.MaxPool2d(kernel, stride)


def _audio_layers() -> nn.Sequential:
    layers: list[nn.Module] = []
    widths, pools = (1, 64, 192, 384, 256, 256), {0: ((1, 1), (1, 1)), 1: ((3, 3), (1, 2)), 4: ((3, 3), (2, 2))}
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        if number in pools:
            layers.append(_pool(*pools[number]))
    return nn.Sequential(*layers, nn.Conv2d(256, 512, (5, 4)), nn.BatchNorm2d(512), nn.ReLU())


def _lip_layers() -> nn.Sequential:
    def block(inputs: int, outputs: int, kernel: tuple[int, ...], stride: int, padding: int) -> list[nn.Module]:
        convolution = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))  # type: ignore[arg-type]
        return [convolution, nn.BatchNorm3d(outputs), nn.ReLU()]

    def pool(padding: int) -> nn.Module:
        return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))

    return nn.Sequential(
        *block(3, 96, (FRAMES, 7, 7), 2, 0), pool(0), *block(96, 256, (1, 5, 5), 2, 1), pool(1),
        *block(256, 256, (1, 3, 3), 1, 1), *block(256, 256, (1, 3, 3), 1, 1), *block(256, 256, (1, 3, 3), 1, 1),
        pool(0), *block(256, 512, (1, 6, 6), 1, 0),
    )  # fmt: skip


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Embed lips and sound into 1024 numbers: 5 frames (B, 3, 5, 224, 224) BGR 0..255, 0.2 s of MFCC (B, 1, 13, 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud, self.netfcaud = _audio_layers(), _head()
        self.netcnnlip, self.netfclip = _lip_layers(), _head()

    @staticmethod
    def load(path: Path) -> SyncNet:
        """Load the published weights. Raises InputError for a file that is missing or of another layout."""
        with torch.device("meta"):
            network = SyncNet()
        try:
            network.load_state_dict(read_pth(path), strict=True, assign=True)
        except RuntimeError as error:
            raise InputError(f"'{path}' is not SyncNet as published: {str(error).splitlines()[-1].strip()}") from None
        return network.eval().requires_grad_(False)

    def lips(self, frames: Tensor) -> Tensor:
        """Embed lips (B, 1024)."""
        embedding: Tensor = self.netfclip(self.netcnnlip(frames).flatten(1))
        return embedding

    def sounds(self, cepstra: Tensor) -> Tensor:
        """Embed sound (B, 1024)."""
        embedding: Tensor = self.netfcaud(self.netcnnaud(cepstra).flatten(1))
        return embedding


def mel_filters() -> NDArray[np.float64]:
    """Build triangular mel filters (26, 257) whose corners lie on whole bins of the spectrum, as HTK's mel scale."""
    highest_mel = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, highest_mel, MEL_BANDS + 2) / 2595) - 1)
    low, middle, high = (
        np.floor((FFT_SIZE + 1) * corners_hz / SAMPLE_RATE_HZ)[part : part + MEL_BANDS, None] for part in range(3)
    )
    bins = np.arange(FFT_SIZE // 2 + 1)
    rising, falling = (bins - low) / np.maximum(middle - low, 1), (high - bins) / np.maximum(high - middle, 1)
    return np.asarray(np.where(bins < middle, rising, falling).clip(0))


def mfcc(samples: Array) -> Array:
    """Compute MFCC (13, columns), 100 a second: windows of 25 ms, 26 HTK mel bands, lifter 22, row 0 the log energy."""
    from scipy.fft import dct

    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1]) * 32768
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, 400)[::160]
    power = np.abs(np.fft.rfft(windows, FFT_SIZE)) ** 2 / FFT_SIZE
    cepstra = dct(np.log(np.maximum(power @ mel_filters().T, 1e-10)), norm="ortho")[:, :CEPSTRA]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(CEPSTRA) / 22)
    cepstra[:, 0] = np.log(np.maximum(power.sum(1), 1e-10))
    columns: Array = cepstra.T.astype(np.float32)
    return columns


def crop_faces(film: TrackedVideo) -> Array:
    """Crop the square around the face of each frame (T, 3, 224, 224) BGR, its place averaged over half a second."""
    low, high = film.landmarks[..., :2].min(1), film.landmarks[..., :2].max(1)
    smooth = np.ones(13) / 13
    middle, side = (low + high) / 2, BOX_SIDE * (high - low).max(1)
    columns = [np.convolve(np.pad(row, 6, mode="edge"), smooth, "valid") for row in (*middle.T, side)]
    cut = []
    for frame, x, y, width in zip(read_video(film.path), *columns, strict=False):
        scale = SIDE_PX / width
        place = np.array([[scale, 0, SIDE_PX / 2 - scale * x], [0, scale, SIDE_PX / 2 - scale * y]])
        face = cv2.warpAffine(frame, place, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA, borderValue=(110, 110, 110))
        cut.append(np.asarray(face)[..., ::-1].transpose(2, 0, 1))
    return np.stack(cut)


@torch.inference_mode()
def distances(network: SyncNet, pictures: Array, cepstra: Array) -> Array:
    """Compute the distances (windows, 31) of every five frames to the sound at offsets from -15 to 15 frames."""
    windows = min(len(pictures) - FRAMES, (cepstra.shape[1] - COLUMNS) // COLUMNS_PER_FRAME) + 1
    lip_embeddings, sound_embeddings = [], []
    for start in range(0, windows, BATCH):
        places = range(start, min(start + BATCH, windows))
        lips = np.stack([pictures[place : place + FRAMES].swapaxes(0, 1) for place in places]).astype(np.float32)
        sounds = np.stack([cepstra[:, 4 * place : 4 * place + COLUMNS][None] for place in places])
        lip_embeddings.append(network.lips(torch.from_numpy(lips)))
        sound_embeddings.append(network.sounds(torch.from_numpy(sounds)))
    lip_rows = torch.cat(lip_embeddings)
    padded = F.pad(torch.cat(sound_embeddings), (0, 0, LARGEST_OFFSET_FRAMES, LARGEST_OFFSET_FRAMES))
    shifts = range(2 * LARGEST_OFFSET_FRAMES + 1)
    rows = [F.pairwise_distance(lip_rows, padded[shift : shift + windows]) for shift in shifts]
    return torch.stack(rows, 1).numpy()


def lse_metrics(network: SyncNet, film: TrackedVideo) -> dict[str, float | None]:
    """Compute LSE-D, the least mean distance over offsets (lower is better), and LSE-C, the median minus it
    (higher)."""
    if len(film.landmarks) <= FRAMES or len(film.sound) < SAMPLE_RATE_HZ // 2:
        return {"LSE-C": None, "LSE-D": None}
    mean = distances(network, crop_faces(film), mfcc(film.sound)).mean(0)
    return {"LSE-C": float(np.median(mean) - mean.min()), "LSE-D": float(mean.min())}
