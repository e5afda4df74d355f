"""A person's own way of talking, after Dynamic Y-KD (arXiv 2303.06015): the frozen old head teaches the new one on the
student's current features, one trunk, two heads; averaging both heads gives a dial. Departures: no classes but motion;
the new task is a residual; the new extractor is the old one with a small change of scale and shift."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.motion import MOTION_WIDTH
from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput, masked_mean
from train.distil.methods.baselines import MotionLoss
from train.harness.training import CheckedConfig, number

TEACHERS = ("y", "old", "none")  # old head on the student's features; on the old ones (LwF, arXiv 1606.09282); neither


@dataclass(frozen=True)
class PersonalConfig(CheckedConfig):
    """Weigh the terms: weight k of the old head's lesson; teacher: what it is taught on; starting_weight: of the
    squared distance from the first weights (L2-SP, arXiv 1802.01483), for comparison."""

    weight: float = number(1.0, 0)
    teacher: str = TEACHERS[0]
    starting_weight: float = number(0.0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("teacher", TEACHERS)


class FeatureDelta(nn.Module):
    """Change features (B, T, H) by a scale and a shift a channel (FiLM, arXiv 1709.07871), at first by nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        return features * (1 + self.scale) + self.shift


class PersonalHead(nn.Module):
    """Predict motion of anybody by a copy of the old head, and of the person with a residual, at first 0."""

    def __init__(self, old: nn.Module, width: int) -> None:
        super().__init__()
        self.general = copy.deepcopy(old).requires_grad_(True)
        self.residual = nn.Linear(width, MOTION_WIDTH)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, T, H) to the person's motion (B, T, 70)."""
        motion: Tensor = self.general(features)[..., :MOTION_WIDTH] + self.residual(features)
        return motion


def y_kd_loss(general: nn.Module, old: nn.Module, features: Tensor, taught_on: Tensor | None = None) -> Tensor:
    """Compute |H_1(F_1(x)) - sg H_0(F_1(x))|^2 () on the student's features (B, T, H); taught_on: features of the old
    extractor for the old head, as LwF has it."""
    with torch.no_grad():
        target = old(features if taught_on is None else taught_on)
    return F.mse_loss(general(features), target)


def blend_heads(one: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Average two state dicts of one architecture, H(w) = w H_a + (1 - w) H_b; at 1 and 0 either, bit for bit."""
    if share in (0.0, 1.0):
        return {name: value.clone() for name, value in (one if share else other).items()}
    return {name: torch.lerp(other[name], value, share) for name, value in one.items()}


class YKD(Distiller):
    """Train a person's head, and hold its general part to the old head. Rows with motion are the person's, the others
    anybody's speech; `student.hidden` are features of the changed extractor."""

    def __init__(self, head: PersonalHead, old: nn.Module, motion_loss: MotionLoss, config: PersonalConfig) -> None:
        super().__init__()
        self.head, self._motion_loss, self._config = head, motion_loss, config
        frozen = copy.deepcopy(old).eval().requires_grad_(False)
        self._old, self._first = (frozen,), [weight.detach().clone() for weight in head.parameters()]
        self.old_features: Tensor | None = None  # of the old extractor for the batch, where it teaches ("old")

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config, features, (old,) = self._config, student.hidden, self._old
        task = masked_mean(self._motion_loss(self.head(features) - batch.motion), batch.has_motion)
        lesson = features.new_zeros(())
        if config.teacher != "none":
            lesson = y_kd_loss(self.head.general, old, features, self.old_features if config.teacher == "old" else None)
        pairs = zip(self.head.parameters(), self._first, strict=True)
        moved = torch.stack([((weight - first.to(weight.device)) ** 2).sum() for weight, first in pairs]).sum()
        loss = task + config.weight * lesson + config.starting_weight * moved
        return loss, {"person": task.item(), "Y-KD": lesson.item()}
