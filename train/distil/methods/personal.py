"""A person's own way of talking, after Dynamic Y-KD (arXiv 2303.06015): the frozen old head teaches the new one on the
student's current features, one trunk, two heads; averaging both gives a dial. Departures: no classes but motion; the
new task is a residual; the new extractor is the old one with a small change of scale and shift."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.causal.network import CausalMotionNetwork, MotionHead
from train.distil.distiller import Logged
from train.distil.methods.baselines import MotionLoss
from train.harness.training import CheckedConfig, number

TEACHERS = ("y", "old", "none")  # old head on the student's features; on the old ones (LwF, arXiv 1606.09282); neither
TRAINED = ("delta and head", "delta", "all")

State = dict[str, Tensor]  # weights of a motion network, by name


@dataclass(frozen=True)
class PersonalConfig(CheckedConfig):
    """Configure a person's training. trained: a small change of the trunk, with a head of one's own or alone, or all
    weights. teacher: what the old head is taught on; weight: k of its lesson; starting_weight: of the squared distance
    from the first weights (L2-SP, arXiv 1802.01483), for comparison; decay: weight decay of the change and of the
    residual. steps, learning_rate: a half cosine; windows: of the person, and of others, in a batch; frames: of a
    window. own_history: share of the steps in which the network goes on from its own frames; history_noise: on given
    frames, in deviations."""

    trained: str = TRAINED[0]
    teacher: str = TEACHERS[0]
    weight: float = number(1.0, 0)
    starting_weight: float = number(0.0, 0)
    decay: float = number(0.1, 0)
    steps: int = number(300, 1)
    learning_rate: float = number(3e-4, 0)
    windows: int = number(8, 1, 256)
    frames: int = number(64, 8)
    own_history: float = number(0.3, 0, 1)
    history_noise: float = number(0.05, 0)
    seed: int = number(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("trained", TRAINED)
        self.check_word("teacher", TEACHERS)


class FeatureDelta(nn.Module):
    """Change the outputs (..., H) of a linear layer by a scale and a shift a channel (FiLM, arXiv 1709.07871), at first
    by nothing; what comes out is the weight and bias of a plain layer again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Change weight (H, C) and bias (H,)."""
        return weight * (1 + self.scale)[:, None], bias * (1 + self.scale) + self.shift


class PersonalHead(nn.Module):
    """Predict motion of anybody by a copy of the old head, and of the person with a residual, at first 0, on its inner
    features, so that both together are a plain head again."""

    def __init__(self, old: MotionHead) -> None:
        super().__init__()
        self.general = copy.deepcopy(old).requires_grad_(True)
        self.residual = nn.Linear(old.output.in_features, MOTION_WIDTH)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def states(self) -> tuple[State, State]:
        """Return the weights of the general head and of the person's."""
        general: State = dict(self.general.named_parameters())
        weight, bias = general["output.weight"], general["output.bias"]  # of mean and log variance
        added = F.pad(self.residual.weight, (0, 0, 0, len(bias) - MOTION_WIDTH))
        own: State = {
            "output.weight": weight + added,
            "output.bias": bias + F.pad(self.residual.bias, (0, MOTION_WIDTH)),
        }
        return general, general | own


class PersonalMotion(nn.Module):
    """Hold the weights that are trained of a person; the motion network of everybody is kept beside them, frozen."""

    def __init__(self, base: CausalMotionNetwork, trained: str) -> None:
        super().__init__()
        self._base = (copy.deepcopy(base).eval().requires_grad_(False),)  # in a tuple: no part of this module
        first = dict(self.base.named_parameters())
        self.head = PersonalHead(base.head) if trained == "delta and head" else None
        self.deltas = nn.ModuleDict()
        self.weights = nn.ParameterDict()
        if trained == "all":
            self.weights = nn.ParameterDict({name.replace(".", "/"): value.clone() for name, value in first.items()})
        else:
            self.deltas = nn.ModuleDict({name.replace(".", "/"): FeatureDelta(len(first[name])) for name in _LAYERS})

    @property
    def base(self) -> CausalMotionNetwork:
        """Return the motion network of everybody."""
        return self._base[0]

    def states(self) -> tuple[State, State]:
        """Return weights of the motion network, by name, with the general head and with the person's; of a trunk and a
        head that are not trained, everybody's."""
        state: State = dict(self.base.named_parameters())
        state |= {name.replace("/", "."): weight for name, weight in self.weights.items()}
        for key, delta in self.deltas.items():
            name = key.replace("/", ".")
            bias = name.replace("weight", "bias")
            state[name], state[bias] = delta(state[name], state[bias])
        heads: tuple[State, State] = ({}, {}) if self.head is None else self.head.states()
        general, own = (state | {f"head.{name}": value for name, value in head.items()} for head in heads)
        return general, own

    def copy_to(self, network: CausalMotionNetwork) -> None:
        """Copy the person's weights into a network of the same sizes."""
        network.load_state_dict({name: value.detach() for name, value in self.states()[1].items()})


_LAYERS = ("input.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0")  # of the trunk, their biases beside


class _Call(nn.Module):
    """Call a method of a network by its name, as `functional_call` wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, method: str, *inputs: Any) -> Any:
        return getattr(self.network, method)(*inputs)


def call_with(state: State, network: nn.Module, method: str, *inputs: Any) -> Any:
    """Call a method of a network with other weights, through which gradients pass."""
    weights = {f"network.{name}": value for name, value in state.items()}
    return functional_call(_Call(network), weights, (method, *inputs))


@dataclass(frozen=True)
class PersonalBatch:
    """Hold windows of T frames: features (B, T, C) of the audio encoder; motion (B, T, 70) normalised, which is the
    person's where is_own (B,) is 1, else generated; before (B, T, 70): the motion that each frame is predicted from;
    portrait (B, 133); noise (B, T, N)."""

    features: Tensor
    motion: Tensor
    is_own: Tensor
    before: Tensor
    portrait: Tensor
    noise: Tensor


class PersonalLoss(nn.Module):
    """Compute |g + r - x|^2 of the person's windows and k |g_H1(F_1(x)) - sg H_0(F_1(x))|^2 of all: the person's head,
    and the general one, which the old head holds on the features of the changed extractor."""

    def __init__(self, motion_loss: MotionLoss, config: PersonalConfig) -> None:
        super().__init__()
        self._motion_loss, self._config = motion_loss, config

    def forward(self, person: PersonalMotion, batch: PersonalBatch) -> tuple[Tensor, Logged]:
        """Compute the loss () and figures to log."""
        config, base = self._config, person.base
        steps, inputs = base.config.steps, (batch.features, batch.before, batch.portrait, batch.noise)
        general, own = person.states()
        hidden, _ = call_with(own, base, "trunk", *inputs)
        mean, _ = call_with(own, base, "predict", hidden, steps)
        errors = self._motion_loss(mean - batch.motion)
        task = (errors * batch.is_own).sum() / batch.is_own.sum().clamp(min=1)
        lesson = task.new_zeros(())
        if config.teacher != "none":
            taught_on = base.trunk(*inputs)[0] if config.teacher == "old" else None
            lesson = y_kd_loss(general, base, hidden, taught_on)
        loss, logged = task + config.weight * lesson, {"person": task.item(), "Y-KD": lesson.item()}
        if config.starting_weight:
            first = dict(base.named_parameters())
            moved = torch.stack([((value - first[name]) ** 2).sum() for name, value in own.items()]).sum()
            loss, logged = loss + config.starting_weight * moved, logged | {"moved": moved.item()}
        return loss, logged


def y_kd_loss(general: State, old: CausalMotionNetwork, hidden: Tensor, taught_on: Tensor | None = None) -> Tensor:
    """Compute |H_1(F_1(x)) - sg H_0(F_1(x))|^2 () over mean and log variance, from the student's hidden states (B, T,
    H); general: weights with the new head; taught_on: states of the old trunk for the old head, as LwF has it."""
    steps = old.config.steps
    with torch.no_grad():
        target = torch.cat(old.predict(hidden if taught_on is None else taught_on, steps), -1)
    return F.mse_loss(torch.cat(call_with(general, old, "predict", hidden, steps), -1), target)
