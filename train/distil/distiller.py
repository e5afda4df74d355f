"""The interface of distillation methods: what student, teacher and batch hold, and the loss that a method makes of
them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Logged = dict[str, float]  # figures of one step, by name

UNLABELLED = -1  # of a frame's label, where the phone is not known
CONFIDENT = 0.6  # the teacher's likeliest phone stands in for a missing label from this probability on


@dataclass(frozen=True)
class Rollout:
    """Hold G free-running motion predictions of a student for each sound, all (B, G, T, 70): the frames that it went on
    from, and the mean and log variance that it predicted for each."""

    frames: Tensor
    mean: Tensor
    log_variance: Tensor


@dataclass(frozen=True)
class StudentOutput:
    """Hold the outputs of a student for a batch.

    stages: hidden states (B, T s_k, D_k) of the encoder's stages, s_k steps a frame, the last being its output; those
    of frame t are the newest that the output of frame t has heard, the look-ahead later than the frame. logits (B, T,
    C) of phones; hidden (B, T, H) states of the motion model below its head; mean, log_variance (B, T, 70) of
    normalised motion. samples (B', K, T, 70): means of K noise trajectories
    for the first B' windows; rollouts: drawn with the predicted
    variance, frames detached; each where a method asks for it.
    """

    stages: tuple[Tensor, ...]
    logits: Tensor
    hidden: Tensor
    mean: Tensor
    log_variance: Tensor
    samples: Tensor | None = None
    rollouts: Rollout | None = None


@dataclass(frozen=True)
class TeacherOutput:
    """Hold the outputs of the frozen teacher for a batch: features (B, T, F) of its encoder, logits (B, T, C) of the
    phone probe on them, samples (B, K, T, 70) of normalised motion; targets (B, K, T, 70), the same with the head that
    the student's noise tells it."""

    features: Tensor
    logits: Tensor
    samples: Tensor
    targets: Tensor


@dataclass(frozen=True)
class DistilBatch:
    """Hold windows of T frames: columns (B, L, 80) of log-mel; labels (B, T) int, UNLABELLED where unknown; motion (B,
    T, 70) normalised, which counts where has_motion (B,) is 1; portrait (B, 133), normalised canonical keypoints and
    reference; the teacher's features (B, T, F) float16 and samples (B, K, T, 70); before (B, 1 + K, 70), the frame
    before the window of the motion and of each sample, the portrait's own where a clip begins."""

    columns: Tensor
    labels: Tensor
    motion: Tensor
    has_motion: Tensor
    portrait: Tensor
    features: Tensor
    samples: Tensor
    before: Tensor

    def targets(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target class (B, T) of every frame, the label or the teacher's likeliest class by its logits
        (B, T, C), and whether (B, T) it counts: where the label is known or the teacher is confident."""
        likeliest, best = logits.detach().softmax(-1).max(-1)
        is_labelled = self.labels != UNLABELLED
        return torch.where(is_labelled, self.labels, best), is_labelled | (likeliest >= CONFIDENT)


class Distiller(nn.Module):
    """Compute the loss of a distillation method. Its parameters, if any, are trained with the student and are no part
    of what is exported; they are made, and all its random numbers drawn, by generators of its own.

    needs: of "samples" and "rollouts", what the student output must hold. step, steps: number of the training step,
    from 1, and of all, which the trainer sets.
    """

    needs: frozenset[str] = frozenset()
    step: int = 1
    steps: int = 1

    @property
    def rate(self) -> float:
        """Return the factor of the learning rate in this step."""
        return 1.0

    def ramp(self, steps: int) -> float:
        """Return 0..1, rising linearly over the first `steps` steps."""
        return min(1.0, self.step / steps) if steps else 1.0

    @abstractmethod
    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        """Return the loss () and figures to log."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average values where the mask of the same shape is true; 0 where it is nowhere."""
    total: Tensor = (values * mask).sum() / mask.sum().clamp(min=1)
    return total


def kl_divergence(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute KL(target || predicted) (...) in nats of logits (..., C) at a temperature; both keep their gradients."""
    target = (target_logits / temperature).log_softmax(-1)
    predicted = (logits / temperature).log_softmax(-1)
    divergence: Tensor = (target.exp() * (target - predicted)).sum(-1)
    return divergence


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute the entropy (...) in nats of logits (..., C)."""
    logarithm = (logits / temperature).log_softmax(-1)
    value: Tensor = -(logarithm.exp() * logarithm).sum(-1)
    return value
