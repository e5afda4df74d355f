"""ACAM-KD (arXiv 2503.06307): feature distillation under masks that teacher and student choose together and anew in
every step, of frames or of pictures. Departures: features normalised per channel; each mask is used once and normalised
to mean 1, else masks of zeros would be best; diversity as the mean Dice of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from kdtalker.audio.whisper import LAYERS_KEPT, STEPS_PER_FRAME
from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput
from train.harness.training import CheckedConfig, number

MASKS = ("cooperative", "teacher", "none")  # by whose features masks are chosen; "none": plain squared error
FIXED = "fixed"  # one spatial mask that is given with the features


@dataclass(frozen=True)
class ACAMConfig(CheckedConfig):
    """Weigh the terms. selectors: M, masks of each kind; normalises: masks have mean 1; diversity: weight of the
    Dice of pairs; begin, end: share of the steps between which features are distilled."""

    weight: float = number(1.0, 0)
    masks: str = MASKS[0]
    selectors: int = number(4, 1)
    normalises: bool = True
    diversity: float = number(0.1, 0)
    begin: float = number(0.05, 0, 1)
    end: float = number(0.9, 0, 1)
    known_masks: ClassVar[tuple[str, ...]] = MASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("masks", self.known_masks)

    def is_on(self, step: int, steps: int) -> bool:
        """Tell whether features are distilled in a step."""
        return self.begin <= step / steps <= self.end


class CrossAttention(nn.Module):
    """Fuse features of teacher (B, C, P) and student (B, D, P) over their positions: queries by the one, keys and
    values by the other, one head (STCA-FF)."""

    def __init__(self, teacher: int, student: int) -> None:
        super().__init__()
        self.query = nn.Conv1d(teacher, teacher // 2, 1)
        self.key = nn.Conv1d(student, teacher // 2, 1)
        self.value = nn.Conv1d(student, teacher, 1)

    def attention(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Compute A = softmax(Q^T K / sqrt(C / 2)) (B, P, P), whose rows sum to 1."""
        query, key = self.query(teacher), self.key(student)
        attention: Tensor = (query.transpose(1, 2) @ key / query.shape[1] ** 0.5).softmax(-1)
        return attention

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        fused: Tensor = self.value(student) @ self.attention(teacher, student).transpose(1, 2)
        return fused


def normalise_channels(features: Tensor) -> Tensor:
    """Normalise each channel of (B, C, P) over batch and positions."""
    mean, variance = features.mean((0, 2), keepdim=True), features.var((0, 2), keepdim=True, unbiased=False)
    return (features - mean) * (variance + 1e-5).rsqrt()


def dice(masks: Tensor) -> Tensor:
    """Compute the mean over pairs of 2 a.b / (a^2 + b^2) () of masks (B, M, N): 1 for equal, 0 for disjoint ones."""
    count = masks.shape[1]
    if count < 2:
        return masks.new_zeros(())
    products = masks @ masks.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    pairs = 2 * products / (squares[:, :, None] + squares[:, None, :] + 1e-6)
    upper = torch.ones(count, count, device=masks.device).triu(1)
    return (pairs * upper).sum((1, 2)).mean() / upper.sum()


def normalise_masks(masks: Tensor) -> Tensor:
    """Normalise masks (B, M, N) to mean 1 each."""
    return masks / masks.mean(2, keepdim=True).clamp(min=1e-6)


class MaskedFeatureLoss(nn.Module):
    """Compute the error between features of teacher (B, C, P) and aligned ones of the student (B, D, P) under M channel
    masks and M spatial masks (ASCM), or under one spatial mask that is given. shown: spatial masks (B, M, P) of the
    last call, as they were used; None without masks."""

    def __init__(self, teacher: int, student: int, config: ACAMConfig) -> None:
        super().__init__()
        self._config = config
        self.align = nn.Conv1d(student, teacher, 1)
        self.fuse = CrossAttention(teacher, student)
        self.channel = nn.Parameter(torch.randn(config.selectors, 1))
        self.spatial = nn.Parameter(torch.randn(config.selectors, teacher) / teacher**0.5)
        self.shown: Tensor | None = None

    def masks(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Choose channel masks (B, M, C) and spatial masks (B, M, P), strictly within 0..1."""
        fused = self.fuse(teacher, student) if self._config.masks == "cooperative" else teacher
        means = fused.mean(2)  # v
        return (self.channel * means[:, None]).sigmoid(), (self.spatial @ fused).sigmoid()  # s(m_c v), s(m_s F)

    def forward(self, teacher: Tensor, student: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the masked error () and the Dice of the masks (). given (B, P): the mask that is fixed."""
        teacher, student = normalise_channels(teacher.detach()), normalise_channels(student)
        error = (teacher - self.align(student)) ** 2
        if self._config.masks == "none":
            return error.mean(), error.new_zeros(())
        by_channel, by_position = error.mean(2), error.mean(1)
        if self._config.masks == FIXED:
            assert given is not None
            self.shown = normalise_masks(given[:, None])
            return (self.shown * by_position[:, None]).mean(), error.new_zeros(())
        channel, spatial = self.masks(teacher, student)
        used = [normalise_masks(mask) if self._config.normalises else mask for mask in (channel, spatial)]
        self.shown = used[1].detach()
        loss: Tensor = (used[0] * by_channel[:, None]).mean() + (used[1] * by_position[:, None]).mean()  # L^c + L^s
        return loss, (dice(channel) + dice(spatial)) / 2


class ACAM(Distiller):
    """Distil the teacher's last layer into the student's output, frames being positions."""

    def __init__(self, width: int, teacher: int, config: ACAMConfig) -> None:
        super().__init__()
        self.features, self._config = MaskedFeatureLoss(teacher, width, config), config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        features = teacher.features.detach().to(student.logits.dtype)
        layers = rearrange(features, "b t (s l c) -> b t s l c", s=STEPS_PER_FRAME, l=LAYERS_KEPT)
        error, overlap = self.features(
            reduce(layers[..., -1, :], "b t s c -> b c t", "mean"), student.stages[-1].transpose(1, 2)
        )
        loss = config.weight * float(config.is_on(self.step, self.steps)) * (error + config.diversity * overlap)
        return loss, {"ACAM": error.item(), "Dice": overlap.item()}
