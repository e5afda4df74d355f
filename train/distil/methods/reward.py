"""Reward motion by what no gradient reaches: lips that close at p, b, m and not at vowels, that rest in silence, move
as far and as smoothly as the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.distiller import DistilBatch
from train.distil.phones import BILABIALS, SILENCE, VOWELS, phone_ids
from train.harness.training import CheckedConfig, number

WITHIN_FRAMES = 2  # a closure counts within so many frames (80 ms)


@dataclass(frozen=True)
class RewardConfig(CheckedConfig):
    """Weigh the parts. threshold: lips nearer than this, in standard deviations of the lip gap from its mean, are
    closed; least, most: amplitude over the teacher's that is right; jerk: over the teacher's, up to which it is right;
    correct_from: closures at p, b, m minus those at vowels, from which a rollout counts as right."""

    threshold: float = -0.7
    closure: float = number(1.0, 0)
    silence: float = number(0.3, 0)
    amplitude: float = number(0.5, 0)
    smoothness: float = number(0.3, 0)
    agreement: float = number(0.5, 0)
    least: float = number(0.8, 0)
    most: float = number(1.25, 0)
    jerk: float = number(1.2, 0)
    correct_from: float = number(0.3, 0, 1)


class MotionReward(nn.Module):
    """Compute rewards 0..1 of rollouts, and which of them are right."""

    gap: Tensor

    def __init__(self, gap: Tensor, config: RewardConfig) -> None:
        """gap (63,): normalised expression to the lip gap in standard deviations."""
        super().__init__()
        self._config = config
        self.register_buffer("gap", gap, persistent=False)

    @torch.no_grad()
    def forward(self, frames: Tensor, teacher: Tensor, batch: DistilBatch) -> tuple[Tensor, Tensor]:
        """Reward frames (B, G, T, 70) by the teacher's samples (B, K, T, 70) and the batch's labels: (B, G), (B, G)
        bool."""
        config = self._config
        ours, theirs = frames[..., 7:] @ self.gap, teacher[..., 7:] @ self.gap
        youden = self._closed_at(ours, batch.labels, BILABIALS) - self._closed_at(ours, batch.labels, VOWELS)
        silent = self._closed_at(ours, batch.labels, (SILENCE,))
        amplitude = ours.std(-1) / theirs.std(-1).mean(1, keepdim=True).clamp(min=1e-6)
        too_far = (config.least - amplitude).clamp(min=0) + (amplitude - config.most).clamp(min=0)
        jerk = _jerk(ours) / _jerk(theirs).mean(1, keepdim=True).clamp(min=1e-6)
        agreement = F.cosine_similarity(_centred(ours), _centred(theirs.mean(1, keepdim=True)), dim=-1)
        parts = (
            (config.closure, 0.5 + 0.5 * youden),
            (config.silence, silent),
            (config.amplitude, (1 - 2 * too_far).clamp(min=0)),
            (config.smoothness, (1 - (jerk - config.jerk).clamp(min=0)).clamp(min=0)),
            (config.agreement, agreement.clamp(min=0)),
        )
        total = sum(weight for weight, _ in parts)
        reward = torch.stack([weight * part for weight, part in parts]).sum(0) / max(total, 1e-6)
        return reward, youden >= config.correct_from

    def _closed_at(self, gap: Tensor, labels: Tensor, phones: tuple[str, ...]) -> Tensor:
        """Compute the share (B, G) of frames of these phones with closed lips nearby; 0 where there is none."""
        is_there = torch.isin(labels, torch.tensor(phone_ids(phones), device=labels.device))[:, None]
        nearest = -F.max_pool1d(-gap, 2 * WITHIN_FRAMES + 1, 1, WITHIN_FRAMES)
        closed = (nearest <= self._config.threshold) & is_there
        share: Tensor = closed.sum(-1) / is_there.sum(-1).clamp(min=1)
        return share


def _jerk(gap: Tensor) -> Tensor:
    return gap.diff(n=3, dim=-1).abs().mean(-1)


def _centred(gap: Tensor) -> Tensor:
    return gap - gap.mean(-1, keepdim=True)
