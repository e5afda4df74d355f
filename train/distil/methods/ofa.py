"""OFA-KD, one for all (arXiv 2310.19444), after the authors' loss: every stage of the student gets an exit branch to
the logits, which is taught by the teacher's final logits alone. Departure: logits are per frame, branches causal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput, masked_mean
from train.harness.training import CheckedConfig, number

KERNEL, HEADS = 5, 4  # of a branch: steps of its convolution, attention heads


@dataclass(frozen=True)
class OFAConfig(CheckedConfig):
    """Weigh the losses. epsilon: exponent of the adaptive target enhancement, 1 and more; powers_others: it applies to
    classes beside the target too, as the authors' code has it; not so in the paper's form. final_weight, branch_weight:
    of the loss on the final logits and on each branch; width, blocks: of a branch; skip_doubtful: leave out frames
    whose label is not the teacher's likeliest class. teaches_branches: False trains branches by labels alone (deep
    supervision), for comparison."""

    weight: float = number(1.0, 0)
    epsilon: float = number(1.2, 1)
    temperature: float = number(1.0, 1e-3)
    powers_others: bool = True
    final_weight: float = number(1.0, 0)
    branch_weight: float = number(0.25, 0)
    width: int = number(128, HEADS)
    blocks: int = number(2, 0)
    skip_doubtful: bool = False
    teaches_branches: bool = True


def ofa_weights(teacher_logits: Tensor, target: Tensor, config: OFAConfig) -> Tensor:
    """Compute w_c = (p_c + 1[c = target])^epsilon - 1[c = target] (..., C); target (...) int."""
    probability = (teacher_logits.detach() / config.temperature).softmax(-1)
    one_hot = F.one_hot(target, probability.shape[-1]).to(probability.dtype)
    powered = (probability + one_hot) ** config.epsilon - one_hot
    return powered if config.powers_others else torch.where(one_hot > 0, powered, probability)


def ofa_loss(logits: Tensor, teacher_logits: Tensor, target: Tensor, config: OFAConfig) -> Tensor:
    """Compute - sum_c w_c log p_s,c (...) of logits (..., C); the label's cross-entropy is not part of it."""
    weights = ofa_weights(teacher_logits, target, config)
    loss: Tensor = -(weights * (logits / config.temperature).log_softmax(-1)).sum(-1)
    return loss


class CausalAttentionBlock(nn.Module):
    """Pre-norm transformer block over (B, T, width) whose frames attend to themselves and those before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        size, frames, _ = x.shape
        query, key, value = self.qkv(self.attention_norm(x)).view(size, frames, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(x.shape))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class ExitBranch(nn.Module):
    """Map a stage's hidden states (B, T stride, D) to logits (B, T, C): a strided causal convolution, causal attention,
    a linear layer."""

    def __init__(self, inputs: int, stride: int, classes: int, config: OFAConfig) -> None:
        super().__init__()
        self._stride = stride
        self.convolution = nn.Conv1d(inputs, config.width, KERNEL, stride)
        self.blocks = nn.Sequential(*(CausalAttentionBlock(config.width) for _ in range(config.blocks)))
        self.norm, self.output = nn.LayerNorm(config.width), nn.Linear(config.width, classes)

    def forward(self, states: Tensor) -> Tensor:
        padded = F.pad(states.transpose(1, 2), (KERNEL - self._stride, 0))
        logits: Tensor = self.output(self.norm(self.blocks(self.convolution(padded).transpose(1, 2))))
        return logits


class OFA(Distiller):
    """Teach the final logits and a branch at every stage by the enhanced posteriors of the teacher."""

    def __init__(self, widths: Sequence[int], steps: Sequence[int], classes: int, config: OFAConfig) -> None:
        """widths, steps: of the stages, steps a frame."""
        super().__init__()
        self._config = config
        self.branches = nn.ModuleList(
            ExitBranch(width, stride, classes, config) for width, stride in zip(widths, steps, strict=True)
        )

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config = self._config
        target, counts = batch.targets(teacher.logits)
        if config.skip_doubtful:
            counts = counts & (target == teacher.logits.argmax(-1))
        branches = [branch(states) for branch, states in zip(self.branches, student.stages, strict=True)]
        final = masked_mean(ofa_loss(student.logits, teacher.logits, target, config), counts)
        taught = [masked_mean(self._branch_loss(logits, teacher.logits, target), counts) for logits in branches]
        loss = config.final_weight * final + config.branch_weight * torch.stack(taught).sum()
        return config.weight * loss, {"OFA": final.item()} | {f"OFA {k}": one.item() for k, one in enumerate(taught, 1)}

    def _branch_loss(self, logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        if self._config.teaches_branches:
            return ofa_loss(logits, teacher_logits, target, self._config)
        return F.cross_entropy(logits.movedim(-1, 1), target, reduction="none")
