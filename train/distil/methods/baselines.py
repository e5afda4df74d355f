"""Baselines: supervision by labels and real motion (B0), regression of features (B1), KL divergence of logits (B2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.distiller import (
    UNLABELLED,
    DistilBatch,
    Distiller,
    Logged,
    StudentOutput,
    TeacherOutput,
    kl_divergence,
    masked_mean,
)
from train.harness.training import CheckedConfig, number

FRAME_STEP = 2  # of the frames whose features are compared: neighbours are much alike


class MotionLoss(nn.Module):
    """Compute the error of motion as the motion model's own recipe weighs it: all numbers, lip gaps, differences."""

    weights: Tensor
    lips: Tensor

    def __init__(self, weights: Tensor, lips: Tensor, lip_weight: float, difference_weight: float) -> None:
        """weights (70,): of the numbers; lips (63, n): normalised expression to lip gaps."""
        super().__init__()
        self._lip_weight, self._difference_weight = lip_weight, difference_weight
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("lips", lips, persistent=False)

    def forward(self, error: Tensor) -> Tensor:
        """Compute the loss (B,) of errors (B, T, 70)."""
        loss: Tensor = (error**2 * self.weights).mean((1, 2))
        loss = loss + self._lip_weight * ((error[..., 7:] @ self.lips) ** 2).mean((1, 2))
        return loss + self._difference_weight * (error.diff(dim=1) ** 2 * self.weights).mean((1, 2))


class Supervised(Distiller):
    """Learn from phone labels and real motion alone (B0): cross-entropy and the motion loss."""

    def __init__(self, motion_loss: MotionLoss, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._motion_loss, self._label_smoothing = motion_loss, label_smoothing

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        labels = batch.labels.clamp(min=0)
        errors = F.cross_entropy(
            student.logits.movedim(-1, 1), labels, reduction="none", label_smoothing=self._label_smoothing
        )
        phones = masked_mean(errors, batch.labels != UNLABELLED)
        motion = masked_mean(self._motion_loss(student.mean - batch.motion), batch.has_motion)
        return phones + motion, {"cross-entropy": phones.item(), "motion": motion.item()}


class FeatureRegression(Distiller):
    """Regress the teacher's features, layer-normalised, from the student's output by one linear layer, in every other
    frame, and the mean of the teacher's motion samples (B1)."""

    def __init__(self, width: int, features: int, motion_loss: MotionLoss) -> None:
        super().__init__()
        self.projection, self._motion_loss = nn.Linear(width, features), motion_loss

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        heard, theirs = (rows[:, ::FRAME_STEP] for rows in (student.stages[-1], teacher.features.detach()))
        wanted = F.layer_norm(theirs.to(heard.dtype), theirs.shape[-1:])
        features = F.mse_loss(self.projection(heard), wanted)
        motion = self._motion_loss(student.mean - teacher.targets.detach().mean(1)).mean()
        return features + motion, {"features": features.item(), "motion": motion.item()}


@dataclass(frozen=True)
class LogitConfig(CheckedConfig):
    """Weigh KL divergence at a temperature and the Gaussian likelihood of motion (beta-NLL, arXiv 2203.09168)."""

    weight: float = number(1.0, 0)
    temperature: float = number(2.0, 1e-3)
    nll_weight: float = number(1.0, 0)
    beta: float = number(0.5, 0, 1)


class LogitKD(Distiller):
    """Match the teacher's phone posteriors by forward KL divergence (arXiv 1503.02531) and its motion samples by the
    Gaussian likelihood (B2)."""

    def __init__(self, config: LogitConfig) -> None:
        super().__init__()
        self._config = config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        divergence = kl_divergence(teacher.logits.detach(), student.logits, config.temperature).mean()
        targets, mean, log_variance = teacher.targets.detach(), student.mean[:, None], student.log_variance[:, None]
        nll = gaussian_nll(targets, mean, log_variance, config.beta).mean()
        loss = config.weight * config.temperature**2 * divergence + config.nll_weight * nll
        return loss, {"KL": divergence.item(), "NLL": nll.item()}


def gaussian_nll(target: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 0.0) -> Tensor:
    """Compute the negative log likelihood (...) of a Gaussian but for its constant, weighted by sg(variance)^beta
    (arXiv 2203.09168, eq. 5)."""
    nll = 0.5 * (log_variance + (target - mean) ** 2 * (-log_variance).exp())
    weighted: Tensor = nll * (beta * log_variance.detach()).exp()
    return weighted
