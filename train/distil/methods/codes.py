"""Logits for motion: a codebook of lip states turns the teacher's samples into posteriors over codes, which a head on
the student's motion states learns. A training aid: neither head nor codes are exported."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput, kl_divergence
from train.distil.methods.ofa import OFAConfig, ofa_loss
from train.harness.training import CheckedConfig, number


@dataclass(frozen=True)
class CodesConfig(CheckedConfig):
    """Configure the codes. codes: V; width: h, the deviation of a code, in deviations of lip gaps; epsilon: exponent of
    OFA-KD's enhancement towards the likeliest code, 0: plain KL divergence."""

    weight: float = number(1.0, 0)
    codes: int = number(64, 2)
    width: float = number(0.5, 1e-3)
    epsilon: float = number(0.0, 0)


def code_logits(states: Tensor, centres: Tensor, width: float) -> Tensor:
    """Compute log of the mean over K samples of softmax(-|x - c|^2 / (2 width^2)): (B, T, V) of states (B, K, T, D) and
    centres (V, D)."""
    squared = ((states[..., None, :] - centres) ** 2).sum(-1)
    posterior = (-squared / (2 * width**2)).softmax(-1)
    return posterior.mean(1).clamp(min=1e-12).log()


class MotionCodes(Distiller):
    """Teach a code head by the teacher's posteriors over codes."""

    centres: Tensor
    lips: Tensor

    def __init__(self, hidden: int, centres: Tensor, lips: Tensor, config: CodesConfig) -> None:
        """hidden: width of the student's motion states; centres (V, n) of lip gaps; lips (63, n)."""
        super().__init__()
        self._config, self.head = config, nn.Linear(hidden, len(centres))
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("lips", lips, persistent=False)

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        states = teacher.samples.detach()[..., 7:] @ self.lips
        target, logits = code_logits(states, self.centres, config.width), self.head(student.hidden)
        if config.epsilon:
            enhanced = OFAConfig(epsilon=config.epsilon)
            loss = ofa_loss(logits, target, target.argmax(-1), enhanced).mean()
        else:
            loss = kl_divergence(target, logits).mean()
        return config.weight * loss, {"codes": loss.item()}
