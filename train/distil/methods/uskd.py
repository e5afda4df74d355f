"""USKD (arXiv 2303.13005, section 3.2): NKD's form without a teacher, soft labels made of the student's own output and
of a weak branch at a lower stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.distiller import UNLABELLED, DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput
from train.distil.methods.nkd import without_target
from train.harness.training import CheckedConfig, number

WEAK_STAGE, SMOOTHING = 1, 0.1  # index of the stage that the weak branch reads; of its labels


@dataclass(frozen=True)
class USKDConfig(CheckedConfig):
    """Weigh the terms: alpha of the target, beta of the others, mu of the weak branch. ranks_by_logarithm: rank classes
    by the logarithm of the student's probability, as the authors' code has it."""

    weight: float = number(1.0, 0)
    alpha: float = number(0.1, 0)
    beta: float = number(0.1, 0)
    mu: float = number(0.1, 0)
    ranks_by_logarithm: bool = True


def soft_target_term(logits: Tensor, target: Tensor) -> Tensor:
    """Compute - V log S_y (N,), V = sg(S_y^2 + 1 - mean over the batch of S_y^2), of logits (N, C)."""
    logarithm = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    squared = logarithm.detach().exp() ** 2
    return -(squared + 1 - squared.mean()) * logarithm


def zipf_labels(logits: Tensor, weak: Tensor, target: Tensor, *, ranks_by_logarithm: bool) -> Tensor:
    """Compute the soft labels (N, C - 1) of the other classes: 1 / rank, the target removed, normalised to 1.

    Classes are ranked, the target among them, by r_c = w_c / (1 - w_y) + s_c / (1 - s_y), w and s the probabilities of
    the weak branch and of the student; s the logarithm of that where asked for.
    """
    place = target[:, None]
    lower, upper = weak.detach().softmax(-1), logits.detach().log_softmax(-1)
    if not ranks_by_logarithm:
        upper = upper.exp()
    tiny = torch.finfo(lower.dtype).eps
    lower, upper = (part / (1 - part.gather(-1, place)).clamp(min=tiny) for part in (lower, upper))
    rank = 1 + torch.argsort(-lower - upper, stable=True).argsort()
    others = without_target(1 / rank.to(logits.dtype), target)
    return others / others.sum(-1, keepdim=True)


def soft_others_term(logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Compute - sum_c z_c log S~_c (N,), S~ the softmax over the classes without the target."""
    term: Tensor = -(labels * without_target(logits, target).log_softmax(-1)).sum(-1)
    return term


class USKD(Distiller):
    """Refine the student's logits on labelled frames; the teacher is not used. The weak branch reads the last step of
    each frame of stage 2."""

    def __init__(self, width: int, classes: int, config: USKDConfig) -> None:
        super().__init__()
        self.weak, self._config = nn.Linear(width, classes), config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config, known = self._config, batch.labels != UNLABELLED
        if not known.any():
            return 0.0 * student.logits.sum(), {"USKD": 0.0}
        states = student.stages[WEAK_STAGE]
        step = states.shape[1] // batch.labels.shape[1]
        weak, logits, target = self.weak(states[:, step - 1 :: step])[known], student.logits[known], batch.labels[known]
        labels = zipf_labels(logits, weak, target, ranks_by_logarithm=config.ranks_by_logarithm)
        terms = torch.stack([
            config.alpha * soft_target_term(logits, target).mean(),
            config.beta * soft_others_term(logits, labels, target).mean(),
            config.mu * F.cross_entropy(weak, target, label_smoothing=SMOOTHING),
        ])  # fmt: skip
        return config.weight * terms.sum(), {"USKD": terms.sum().item()}
