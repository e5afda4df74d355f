"""SinKD (arXiv 2402.17110): optimal transport between student and teacher over a batch, by Sinkhorn iterations.

As the authors' code has it, total mass is the number of rows and the gradient goes through all iterations. Departures:
the logarithmic domain; a debiased form (Sinkhorn divergence, arXiv 1706.00292), which is 0 where both are equal; and
its use on sets of motion samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput
from train.harness.training import CheckedConfig, number


def sinkhorn_plan(cost: Tensor, blur: float | Tensor, iterations: int) -> Tensor:
    """Compute the transport plan (..., N, M) of a cost by iterations that normalise rows, then columns, of
    exp(-cost / blur): columns sum to 1, rows to about 1."""
    plan = -cost / blur
    for _ in range(iterations):
        plan = plan - plan.logsumexp(-1, keepdim=True)
        plan = plan - plan.logsumexp(-2, keepdim=True)
    return plan.exp()


def transport_loss(cost: Tensor, blur: float | Tensor, iterations: int) -> Tensor:
    """Compute sum_ij plan_ij cost_ij (...) of a cost (..., N, M)."""
    loss: Tensor = (sinkhorn_plan(cost, blur, iterations) * cost).sum((-2, -1))
    return loss


def sinkhorn_divergence(one: Tensor, other: Tensor, blur: float | Tensor, iterations: int, norm: float) -> Tensor:
    """Compute l(one, other) - l(one, one) / 2 - l(other, other) / 2 (...) of rows (..., N, D) and (..., N, D)."""
    pairs = ((one, other, 1.0), (one, one, -0.5), (other, other, -0.5))
    terms = [share * transport_loss(_distance(a, b, norm), blur, iterations) for a, b, share in pairs]
    return torch.stack(terms).sum(0)


def _distance(one: Tensor, other: Tensor, norm: float) -> Tensor:
    return torch.cdist(one, other, norm, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class SinkhornConfig(CheckedConfig):
    """Weigh both uses. phones: rows are frames of different utterances, `row_step` frames apart within one, weight as
    the authors' inner factor, in full after `ramp_steps`; samples: rows are motion samples of one sound over
    `sample_frames` frames, blur being a share of the median cost; lips, head and their speed count by these shares."""

    weight: float = number(1.0, 0)
    phone_weight: float = number(1e-3, 0)
    blur: float = number(0.1, 1e-6)
    iterations: int = number(20, 1)
    temperature: float = number(2.0, 1e-3)
    ramp_steps: int = number(300, 0)
    rows: int = number(256, 2)
    row_step: int = number(6, 1)
    debiases_phones: bool = False
    sample_blur: float = number(0.05, 1e-6)
    sample_iterations: int = number(50, 1)
    sample_frames: int = number(32, 1)
    debiases_samples: bool = True
    lips: float = number(1.0, 0)
    head: float = number(0.0, 0)
    speed: float = number(0.0, 0)


class SinkhornPhones(Distiller):
    """Match phone posteriors over a batch of frames. It does not know which row is which: only beside a loss that
    does."""

    def __init__(self, config: SinkhornConfig) -> None:
        super().__init__()
        self._config = config

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        rows = [self._rows(logits) for logits in (student.logits, teacher.logits.detach())]
        if config.debiases_phones:
            loss = sinkhorn_divergence(rows[0], rows[1], config.blur, config.iterations, 1)
        else:  # D_ij = ||p_s,i - p_t,j||_1
            loss = transport_loss(_distance(rows[0], rows[1], 1), config.blur, config.iterations)
        return config.phone_weight * self.ramp(config.ramp_steps) * loss, {"Sinkhorn a row": loss.item() / len(rows[0])}

    def _rows(self, logits: Tensor) -> Tensor:
        """Choose frames far apart, at most so many rows: posteriors (N, C)."""
        chosen = logits[:, :: self._config.row_step].flatten(0, 1)[: self._config.rows]
        return (chosen / self._config.temperature).softmax(-1)


class SinkhornSamples(Distiller):
    """Match the set of a student's motion samples with the teacher's, lips and head over a stretch of frames being one
    row."""

    needs = frozenset({"samples"})
    lips: Tensor

    def __init__(self, lips: Tensor, config: SinkhornConfig) -> None:
        """lips (63, n): normalised expression to lip gaps."""
        super().__init__()
        self._config = config
        self.register_buffer("lips", lips, persistent=False)

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        assert student.samples is not None
        config = self._config
        theirs = teacher.samples.detach()[: len(student.samples)]
        ours, theirs = self._tracks(student.samples), self._tracks(theirs)
        median = _distance(ours, theirs, 2).detach().flatten(1).median(1).values[:, None, None]
        scale = median.clamp(min=1e-6)
        ours, theirs = ours / scale, theirs / scale
        if config.debiases_samples:
            loss = sinkhorn_divergence(ours, theirs, config.sample_blur, config.sample_iterations, 2)
        else:
            loss = transport_loss(_distance(ours, theirs, 2), config.sample_blur, config.sample_iterations)
        value = loss.mean() / ours.shape[1]
        return config.weight * value, {"Sinkhorn samples": value.item(), "median cost": median.mean().item()}

    def _tracks(self, samples: Tensor) -> Tensor:
        """Cut tracks (B S, K, frames n) of S stretches out of samples (B, K, T, 70)."""
        config = self._config
        rows = torch.cat([config.lips * (samples[..., 7:] @ self.lips), config.head * samples[..., 1:7]], -1)
        if config.speed:
            rows = torch.cat([rows[:, :, 1:], config.speed * rows.diff(dim=2)], -1)
        length = min(config.sample_frames, rows.shape[2])
        stretches = rows.unfold(2, length, length).movedim(2, 1)
        return stretches.flatten(0, 1).flatten(2)
