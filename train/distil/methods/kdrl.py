"""KDRL (arXiv 2506.02208): policy gradient on the student's own rollouts (GRPO, arXiv 2402.03300) and reverse KL
divergence to the teacher on the same ones. Departures: motion in place of tokens, the policy a Gaussian a frame; the
teacher's density is fitted to its cached samples of the sound, so it does not see the student's own frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput
from train.distil.methods.reward import MotionReward, RewardConfig
from train.harness.training import CheckedConfig, number

ESTIMATORS, GUIDES = ("exact", "k2"), ("none", "response", "group")


@dataclass(frozen=True)
class KDRLConfig(CheckedConfig):
    """Weigh the terms. rollouts: G a sound; beta: weight of the KL divergence, which falls linearly to `last_share` of
    it over `annealed` of the steps; estimator of it; guide: the divergence counts only for wrong rollouts ("response")
    or in groups without a right one ("group"); switch_at: share of the steps of pure distillation, after which there is
    the reward alone (0: both together all the time); least_std: of the teacher's density."""

    weight: float = number(1.0, 0)
    rollouts: int = number(8, 2)
    beta: float = number(0.1, 0)
    annealed: float = number(0.6, 0, 1)
    last_share: float = number(0.2, 0, 1)
    estimator: str = ESTIMATORS[0]
    guide: str = GUIDES[0]
    switch_at: float = number(0.0, 0, 1)
    least_std: float = number(0.1, 1e-6)
    reward: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("estimator", ESTIMATORS)
        self.check_word("guide", GUIDES)


def advantages(rewards: Tensor) -> Tensor:
    """Compute (r - mean) / std over each group (B, G); 0 in a group of equal rewards."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True, unbiased=False) + 1e-6)


def log_density(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the log density (...) of values (..., D) under diagonal Gaussians."""
    squared = (value - mean) ** 2 * (-log_variance).exp()
    logarithm: Tensor = -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)
    return logarithm


def k2(policy: Tensor, teacher: Tensor) -> Tensor:
    """Compute R^2 / 2, R = log teacher - log policy: the mean's gradient is that of KL(policy || teacher)."""
    return 0.5 * (teacher.detach() - policy) ** 2


def k3(policy: Tensor, teacher: Tensor) -> Tensor:
    """Compute e^R - R - 1, an unbiased estimate of KL(policy || teacher), to log; its gradient is another's."""
    ratio = teacher.detach() - policy
    return ratio.exp() - ratio - 1


def gaussian_reverse_kl(
    mean: Tensor, log_variance: Tensor, teacher_mean: Tensor, teacher_log_variance: Tensor
) -> Tensor:
    """Compute KL(policy || teacher) (...) of diagonal Gaussians (..., D) in closed form."""
    difference = log_variance - teacher_log_variance
    squared = (mean - teacher_mean) ** 2 * (-teacher_log_variance).exp()
    divergence: Tensor = 0.5 * (difference.exp() + squared - 1 - difference).sum(-1)
    return divergence


def annealed_beta(step: int, first: float = 5e-3, fall: float = 5e-5, last: float = 1e-3) -> float:
    """Compute the paper's schedule max(5e-3 - 5e-5 step, 1e-3)."""
    return max(first - fall * step, last)


def guidance_mask(correct: Tensor, guide: str) -> Tensor:
    """Choose the rollouts (B, G) that the divergence counts for; correct (B, G) bool."""
    if guide == "response":
        return ~correct
    return ~correct.any(1, keepdim=True).expand_as(correct) if guide == "group" else torch.ones_like(correct)


def policy_loss(log_probability: Tensor, rewards: Tensor) -> Tensor:
    """Compute the loss of GRPO () with one update a batch: - sum A log pi / frames, of log_probability (B, G, T)."""
    return -(advantages(rewards).detach()[..., None] * log_probability).mean()


class KDRL(Distiller):
    """Reward rollouts, and hold the policy near the teacher."""

    needs = frozenset({"rollouts"})

    def __init__(self, reward: MotionReward, config: KDRLConfig) -> None:
        super().__init__()
        self.reward, self._config = reward, config

    @property
    def beta(self) -> float:
        """Return the weight of the divergence in this step."""
        config, done = self._config, self.step / self.steps
        fallen = min(1.0, done / config.annealed) if config.annealed else 0.0
        return config.beta * (1 - (1 - config.last_share) * fallen)

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        assert student.rollouts is not None
        config, rollouts = self._config, student.rollouts
        frames, width = rollouts.frames.detach(), rollouts.frames.shape[-1]
        rewards, correct = self.reward(frames, teacher.samples.detach(), batch)
        log_probability = log_density(frames, rollouts.mean, rollouts.log_variance) / width
        reinforced = policy_loss(log_probability, rewards)
        divergence = self._divergence(frames, rollouts.mean, rollouts.log_variance, teacher.samples.detach()) / width
        held = (divergence.mean(-1) * guidance_mask(correct, config.guide)).mean()
        if config.switch_at:
            loss = held if self.step <= config.switch_at * self.steps else reinforced
        else:
            loss = reinforced + self.beta * held
        logged = {"reward": rewards.mean().item(), "correct": correct.float().mean().item(), "KL": held.item()}
        return config.weight * loss, logged

    def _divergence(self, frames: Tensor, mean: Tensor, log_variance: Tensor, samples: Tensor) -> Tensor:
        """Compute the divergence (B, G, T) of expressions from the teacher's Gaussian of each frame; heads follow their
        noise."""
        config = self._config
        frames, mean, log_variance, samples = (one[..., 7:] for one in (frames, mean, log_variance, samples))
        teacher_mean, deviation = samples.mean(1, keepdim=True), samples.std(1, keepdim=True, unbiased=False)
        teacher = teacher_mean, 2 * deviation.clamp(min=config.least_std).log()
        if config.estimator == "exact":
            return gaussian_reverse_kl(mean, log_variance, *teacher)
        return k2(log_density(frames, mean, log_variance), log_density(frames, *teacher))
