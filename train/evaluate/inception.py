"""Compute FID (Heusel et al., arXiv 1706.08500, eq. 6): the Fréchet distance between Inception features of two films.

The network is Inception v3 (Szegedy et al., arXiv 1512.00567, table 1) in the variant that TensorFlow published on
2015-12-05, whose 2048 pooled features FID is defined on. Averages at image borders leave the padding out, and the last
block takes a maximum. Names and layout are those of its PyTorch conversion, `pt_inception-2015-12-05-6726825d.pth`.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.weights.pth import read_pth

SIDE_PX, BATCH = 299, 8
Kernel = int | tuple[int, int]
# Convolutions one after another: width and kernel, or two kernels side by side.
Chain = tuple[tuple[int, Kernel] | tuple[int, Kernel, Kernel], ...]


def convolution(inputs: int, outputs: int, kernel: Kernel, stride: int = 1, *, pad: bool = True) -> nn.Module:
    """Build a convolution without bias, batch normalisation and ReLU."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (size[0] // 2, size[1] // 2) if pad else (0, 0)
    layers = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), bn=nn.BatchNorm2d(outputs, 0.001),
        relu=nn.ReLU(inplace=True),
    )  # fmt: skip
    return nn.Sequential(layers)


class InceptionBlock(nn.Module):
    """Concatenate branches, each a chain of convolutions; `branch_pool` is pooled first, and without one the pooled
    input itself is the last branch. stride: of the last convolution of each chain, which then has no padding."""

    def __init__(self, inputs: int, pool: nn.Module, stride: int = 1, **branches: Chain) -> None:
        super().__init__()
        self.pool = pool
        self.branches: dict[str, list[list[str]]] = {}
        for branch, chain in branches.items():
            width, self.branches[branch] = inputs, []
            for place, (outputs, *kernels) in enumerate(chain, 1):
                names, step = [], stride if place == len(chain) else 1
                for letter, kernel in zip(("a", "b") if len(kernels) == 2 else ("",), kernels, strict=True):
                    names.append(f"{branch}_{place}{letter}" if len(chain) > 1 else branch)
                    self.add_module(names[-1], convolution(width, outputs, kernel, step, pad=step == 1))
                self.branches[branch].append(names)
                width = outputs

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pool(features)
        found = []
        for branch, chain in self.branches.items():
            values = pooled if branch == "branch_pool" else features
            for names in chain:
                values = torch.cat([self.get_submodule(name)(values) for name in names], 1)
            found.append(values)
        return torch.cat(found if "branch_pool" in self.branches else [*found, pooled], 1)


def _average() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def _square_block(inputs: int, pooled: int) -> InceptionBlock:
    return InceptionBlock(
        inputs, _average(), branch1x1=((64, 1),), branch5x5=((48, 1), (64, 5)),
        branch3x3dbl=((64, 1), (96, 3), (96, 3)), branch_pool=((pooled, 1),),
    )  # fmt: skip


def _factorised_block(width: int) -> InceptionBlock:
    row, column = (1, 7), (7, 1)
    return InceptionBlock(
        768, _average(), branch1x1=((192, 1),), branch7x7=((width, 1), (width, row), (192, column)),
        branch7x7dbl=((width, 1), (width, column), (width, row), (width, column), (192, row)),
        branch_pool=((192, 1),),
    )  # fmt: skip


def _expanded_block(inputs: int, pool: nn.Module) -> InceptionBlock:
    both: tuple[Kernel, Kernel] = ((1, 3), (3, 1))
    return InceptionBlock(
        inputs, pool, branch1x1=((320, 1),), branch3x3=((384, 1), (384, *both)),
        branch3x3dbl=((448, 1), (384, 3), (384, *both)), branch_pool=((192, 1),),
    )  # fmt: skip


class InceptionV3(nn.Sequential):
    """Embed pictures (B, 3, 299, 299), -1..1, into 2048 features."""

    def __init__(self) -> None:
        halve = nn.MaxPool2d(3, 2)
        layers = OrderedDict[str, nn.Module](
            Conv2d_1a_3x3=convolution(3, 32, 3, 2, pad=False), Conv2d_2a_3x3=convolution(32, 32, 3, pad=False),
            Conv2d_2b_3x3=convolution(32, 64, 3), pool1=halve, Conv2d_3b_1x1=convolution(64, 80, 1),
            Conv2d_4a_3x3=convolution(80, 192, 3, pad=False), pool2=halve,
            Mixed_5b=_square_block(192, 32), Mixed_5c=_square_block(256, 64), Mixed_5d=_square_block(288, 64),
            Mixed_6a=InceptionBlock(
                288, halve, 2, branch3x3=((384, 3),), branch3x3dbl=((64, 1), (96, 3), (96, 3))
            ),
            Mixed_6b=_factorised_block(128), Mixed_6c=_factorised_block(160), Mixed_6d=_factorised_block(160),
            Mixed_6e=_factorised_block(192),
            Mixed_7a=InceptionBlock(
                768, halve, 2, branch3x3=((192, 1), (320, 3)),
                branch7x7x3=((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)),
            ),
            Mixed_7b=_expanded_block(1280, _average()), Mixed_7c=_expanded_block(2048, nn.MaxPool2d(3, 1, 1)),
            pool3=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
        )  # fmt: skip
        super().__init__(layers)

    @staticmethod
    def load(path: Path) -> InceptionV3:
        """Load the published weights, without their classifier. Raises InputError for a file of another layout."""
        with torch.device("meta"):
            network = InceptionV3()
        tensors = {name: tensor for name, tensor in read_pth(path).items() if not name.startswith("fc.")}
        try:
            network.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()[:200]
            raise InputError(f"'{path}' is not Inception v3 as FID uses it: {reason}") from None
        return network.eval().requires_grad_(False)


def resize(pictures: Tensor) -> Tensor:
    """Resize pictures (B, 3, H, W) to 299 px bilinearly with corners as in TensorFlow 1, which does not smooth."""

    def weights(size: int) -> Tensor:
        place = torch.arange(SIDE_PX, dtype=torch.float64) * size / SIDE_PX
        low = place.long()
        share = (place - low)[:, None]
        ends = F.one_hot(low, size), F.one_hot((low + 1).clamp(max=size - 1), size)
        return ((1 - share) * ends[0] + share * ends[1]).float()

    height, width = pictures.shape[2:]
    return weights(height) @ pictures @ weights(width).T


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Compute the Fréchet distance of two sets of features (N, size), (M, size), in float64, by their means m and
    covariances C: |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), the last trace by the eigenvalues of C1^½ C2 C1^½."""
    means = [values.mean(0, dtype=np.float64) for values in (one, other)]
    covariances = [np.atleast_2d(np.cov(values, rowvar=False, dtype=np.float64)) for values in (one, other)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)
    traces = sum(float(np.trace(covariance)) for covariance in covariances) - 2 * float(np.sqrt(shared).sum())
    return float(((means[0] - means[1]) ** 2).sum()) + traces


@torch.inference_mode()
def embed_video(network: nn.Module, frames: Iterable[Image]) -> NDArray[np.float32]:
    """Embed whole frames (H, W, 3) of a video into features (N, 2048)."""
    remaining, features = iter(frames), []
    while batch := list(itertools.islice(remaining, BATCH)):
        pictures = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()
        features.append(network((resize(pictures) - 128) / 128).numpy())
    return np.concatenate(features)
