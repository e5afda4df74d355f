"""Balanced online distillation after BD-KD (arXiv 2212.12965): teacher and student learn together; forward and reverse
KL divergence are weighted for each sample by the gap of their entropies. Neither code nor formulas were at hand: the
weights are ours. Departure: the teacher that learns is the phone probe, on frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.distiller import (
    DistilBatch,
    Distiller,
    Logged,
    StudentOutput,
    TeacherOutput,
    entropy,
    kl_divergence,
    masked_mean,
)
from train.harness.training import CheckedConfig, number


@dataclass(frozen=True)
class BalancedConfig(CheckedConfig):
    """Weigh the terms. kappa: what the entropy gap adds to the favoured divergence (0: equal weights); forward,
    reverse: of each divergence of the student; teacher_weight: of the divergence that regularises the teacher."""

    weight: float = number(1.0, 0)
    kappa: float = number(1.0, 0)
    temperature: float = number(2.0, 1e-3)
    forward: float = number(1.0, 0)
    reverse: float = number(1.0, 0)
    teacher_weight: float = number(0.5, 0)
    teacher_rate: float = number(1.0, 0)


def balance(student: Tensor, teacher: Tensor, kappa: float, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute the weights (...) of forward and reverse divergence from logits (..., C): a = 1 + kappa 1[g > 0] and b =
    1 + kappa 1[g < 0], g = sg(H(teacher) - H(student)): an over-confident student is spread, a flat one sharpened."""
    gap = (entropy(teacher, temperature) - entropy(student, temperature)).detach()
    return 1 + kappa * (gap > 0), 1 + kappa * (gap < 0)


def balanced_student_loss(student: Tensor, teacher: Tensor, config: BalancedConfig) -> Tensor:
    """Compute temperature^2 (a KL(sg teacher || student) + b KL(student || sg teacher)) (...)."""
    teacher = teacher.detach()
    a, b = balance(student, teacher, config.kappa, config.temperature)
    forward = kl_divergence(teacher, student, config.temperature)
    reverse = kl_divergence(student, teacher, config.temperature)
    return config.temperature**2 * (config.forward * a * forward + config.reverse * b * reverse)


def balanced_teacher_loss(student: Tensor, teacher: Tensor, config: BalancedConfig) -> Tensor:
    """Compute temperature^2 KL(sg student || teacher) (...), which mutual learning (arXiv 1706.00384) has too."""
    return config.temperature**2 * kl_divergence(student.detach(), teacher, config.temperature)


class Balanced(Distiller):
    """Train the student's logits and the phone probe together."""

    def __init__(self, probe: nn.Module, config: BalancedConfig) -> None:
        """probe: features (B, T, F) to logits (B, T, C); it is trained on."""
        super().__init__()
        self.probe, self._config = probe, config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        learned = self.probe(teacher.features.detach().to(student.logits.dtype))
        target, counts = batch.targets(teacher.logits)
        ours = balanced_student_loss(student.logits, learned, config).mean()
        errors = F.cross_entropy(learned.movedim(-1, 1), target, reduction="none")
        theirs = balanced_teacher_loss(student.logits, learned, config).mean()
        theirs = masked_mean(errors, counts) + config.teacher_weight * theirs
        a, b = balance(student.logits, learned, config.kappa, config.temperature)
        logged = {"BD student": ours.item(), "BD teacher": theirs.item(), "spread share": (a > b).float().mean().item()}
        return config.weight * ours + config.teacher_rate * theirs, logged


def fit_temperature(logits: Tensor, labels: Tensor, steps: int = 50) -> float:
    """Fit the temperature of temperature scaling (arXiv 1706.04599) to logits (N, C) and labels (N,): the baseline that
    a method for calibration has to beat."""
    logarithm = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([logarithm], max_iter=steps, line_search_fn="strong_wolfe")
    fixed = logits.detach()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(fixed / logarithm.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(logarithm.detach().exp())
