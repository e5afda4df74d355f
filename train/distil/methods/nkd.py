"""NKD (arXiv 2303.13005, section 3.1): the target's cross-entropy weighted by the teacher, and the other classes
normalised to 1 on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from train.distil.distiller import (
    DistilBatch,
    Distiller,
    Logged,
    StudentOutput,
    TeacherOutput,
    kl_divergence,
    masked_mean,
)
from train.harness.training import CheckedConfig, number


@dataclass(frozen=True)
class NKDConfig(CheckedConfig):
    """Weigh the terms. target_weight: of the target term; gamma, temperature: of the others; normalises: False leaves
    the others' probabilities as they are, for comparison; doubtful_weight: of the KL divergence in frames that have
    neither a label nor a confident teacher."""

    weight: float = number(1.0, 0)
    target_weight: float = number(1.0, 0)
    gamma: float = number(1.5, 0)
    temperature: float = number(1.0, 1e-3)
    normalises: bool = True
    doubtful_weight: float = number(1.0, 0)


def without_target(logits: Tensor, target: Tensor) -> Tensor:
    """Remove the target's logit: (..., C) to (..., C - 1); target (...) int."""
    classes = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = classes + (classes >= target[..., None])
    return logits.gather(-1, others)


def target_term(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Compute - T_y log S_y (...), at temperature 1."""
    place = target[..., None]
    logarithm, weight = student.log_softmax(-1).gather(-1, place), teacher.detach().softmax(-1).gather(-1, place)
    return -(weight * logarithm)[..., 0]


def others_term(student: Tensor, teacher: Tensor, target: Tensor, config: NKDConfig) -> Tensor:
    """Compute - sum_{c != y} T~_c log S~_c (...), T~ and S~ the softmax over the classes without the target."""
    if config.normalises:
        ours, theirs = without_target(student, target), without_target(teacher.detach(), target)
        logarithm = (ours / config.temperature).log_softmax(-1)
        probability = (theirs / config.temperature).softmax(-1)
    else:
        logarithm = without_target((student / config.temperature).log_softmax(-1), target)
        probability = without_target((teacher.detach() / config.temperature).softmax(-1), target)
    term: Tensor = -(probability * logarithm).sum(-1)
    return term


def nkd_loss(student: Tensor, teacher: Tensor, target: Tensor, config: NKDConfig) -> Tensor:
    """Compute the loss (...) beside the label's cross-entropy: target term + gamma temperature^2 others."""
    others = config.gamma * config.temperature**2 * others_term(student, teacher, target, config)
    return config.target_weight * target_term(student, teacher, target) + others


class NKD(Distiller):
    """Teach the final logits; where the target is not known, by KL divergence."""

    def __init__(self, config: NKDConfig) -> None:
        super().__init__()
        self._config = config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        target, counts = batch.targets(teacher.logits)
        known = masked_mean(nkd_loss(student.logits, teacher.logits, target, config), counts)
        doubtful = masked_mean(kl_divergence(teacher.logits.detach(), student.logits), ~counts)
        return config.weight * (known + config.doubtful_weight * doubtful), {"NKD": known.item()}


def dkd_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Compute DKD (arXiv 2203.08679, eq. 7) (...): alpha KL of target against the rest + beta KL of the others; for
    comparison."""
    place, teacher = target[..., None], teacher.detach()

    def binary(logits: Tensor) -> Tensor:
        ours = (logits / temperature).gather(-1, place)
        rest = (without_target(logits, target) / temperature).logsumexp(-1, keepdim=True)
        return torch.cat([ours, rest], -1).log_softmax(-1)

    target_part = F.kl_div(binary(student), binary(teacher), reduction="none", log_target=True).sum(-1)
    others = kl_divergence(without_target(teacher, target), without_target(student, target), temperature)
    loss: Tensor = temperature**2 * (alpha * target_part + beta * others)
    return loss
