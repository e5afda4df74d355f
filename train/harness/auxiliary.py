"""Let a method take part in the training of a network: first weights, a term of the loss, figures."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from train.harness.figures import Figure, Metrics

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class AuxiliaryLoss(nn.Module):
    """Add nothing to a training; a subclass is a method. What it adds to the loss may have parameters, which are
    trained with the network and are no part of what is exported. It must draw its random numbers from generators of its
    own, so that weight 0 changes no bit of the training."""

    def begin(self, network: nn.Module, device: torch.device) -> None:
        """Prepare for the training of a network, which is not yet copied: its first weights may be set here."""

    def watch(self, network: nn.Module, step: int) -> None:
        """Follow the network from here on; step: the one that a resumed training goes on from."""

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of parameters that an optimiser gets beside the network's."""
        parameters = list(self.parameters())
        return [{"params": parameters}] if parameters else []

    @property
    def learners(self) -> dict[str, nn.Module]:
        """Return the modules whose state a run keeps, by name."""
        return {"auxiliary": self} if self.groups else {}

    def add(self, step: int, loss: Tensor, painting: Tensor, batch: Any) -> Tensor:
        """Return the loss () of a step with what is added; painting (B, 3, H, W): what the network has drawn."""
        return loss

    def validated(
        self, network: nn.Module, step: int, metrics: Metrics, figures: dict[str, Figure]
    ) -> tuple[Metrics, dict[str, Figure]]:  # fmt: skip
        """Add to the figures of the validation split; network: the one that is exported."""
        return metrics, figures
