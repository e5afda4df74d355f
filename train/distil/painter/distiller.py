"""Add a distillation to the training of a painter, and write the row of its results."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.errors import InputError
from train.distil.arm import match_gradient
from train.distil.measure.cost import TrainingCost, describe_processor
from train.distil.measure.rows import ResultRow
from train.distil.methods.acam import MaskedFeatureLoss
from train.distil.painter.corpus import PainterCorpus
from train.distil.painter.cost import graph_figures
from train.distil.painter.figures import plot_masks, take_figures
from train.distil.painter.kinds import PainterKind
from train.distil.trainer import FIGURES_FILE, ROOT
from train.harness.auxiliary import AuxiliaryLoss
from train.harness.figures import Figure, Metrics
from train.harness.plan import count_parameters
from train.harness.provenance import describe_commit

MOST_POSITIONS = 784  # of features that are compared, as many as attention can afford; finer ones are averaged
SHOWN = 4  # pictures of a batch whose masks are plotted


class PainterDistiller(AuxiliaryLoss):
    """Compare a student's painting, or its features, with those of a frozen teacher, and add the error to its loss."""

    def __init__(self, kind: PainterKind, corpus: PainterCorpus, recipe: Any) -> None:
        super().__init__()
        self._kind, self._corpus, self._recipe, self._config = kind, corpus, recipe, recipe.distil
        teacher = kind.load_teacher(recipe.teacher)
        self._teacher = (teacher,)  # in a tuple: frozen, no part of this module
        self._cost, self._theirs, self._ours = TrainingCost(recipe.run), dict[int, Tensor](), dict[int, Tensor]()
        self._wanted: dict[str, Metrics] = {}
        self._shown: tuple[Tensor, Tensor, Tensor] | None = None
        self.levels = nn.ModuleList()
        if self._config.method == "features":
            widths = zip(kind.widths(teacher), kind.widths(kind.build(recipe)), strict=True)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed * 1000)
                self.levels.extend(MaskedFeatureLoss(*pair, self._config) for pair in widths)
        count = {"none": 0, "output": 1}.get(self._config.method, len(self.levels))
        self.logged: Metrics = {f"{name} {level}": 0.0 for name in ("term", "scale") for level in range(count)}

    @property
    def teacher(self) -> nn.Module:
        """Return the frozen teacher."""
        return self._teacher[0]

    @property
    def compared(self) -> list[MaskedFeatureLoss]:
        """Return the errors of features, from the finest level on."""
        return cast("list[MaskedFeatureLoss]", list(self.levels))

    def begin(self, network: nn.Module, device: torch.device) -> None:
        self.to(device)
        self.teacher.to(device)
        self._kind.begin(network, self.teacher)

    def watch(self, network: nn.Module, step: int) -> None:
        for watched, kept in ((network, self._ours), (self.teacher, self._theirs)):
            count = len(self._kind.widths(network))
            self._kind.record(watched, [kept_at(kept, level) for level in range(count)])
        self._cost.resume(step)

    def add(self, step: int, loss: Tensor, painting: Tensor, batch: Any) -> Tensor:
        recipe, config = self._recipe, self._config
        self._shown = None
        if config.method != "none" and config.is_on(step, recipe.steps):
            loss = self._added(loss, painting, batch)
        if step % math.gcd(recipe.save_every, recipe.validate_every) == 0:
            self._cost.save()
        return loss

    def _added(self, loss: Tensor, painting: Tensor, batch: Any) -> Tensor:
        config = self._config
        with torch.no_grad():
            wanted, inside = self._kind.paint(self.teacher, batch), self._kind.inside(batch)
        self._cost.passes["painter"] = self._cost.passes.get("painter", 0) + 1
        total = loss
        for level, (term, at) in enumerate(self._terms(painting, wanted, inside)):
            scale = config.weight * match_gradient(term, [loss], at, config.share).detach()
            total = total + scale * term
            self.logged |= {f"term {level}": term.item(), f"scale {level}": float(scale)}
        self._shown = painting.detach()[:SHOWN], wanted[:SHOWN], inside[:SHOWN]
        return total

    def _terms(self, painting: Tensor, wanted: Tensor, inside: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute each term () and the student's tensor that it compares."""
        if self._config.method == "output":
            weight = inside / (inside.mean() + 1e-6)
            return [((weight * (painting - wanted).abs()).mean(), painting)]
        terms = []
        for level, compare in enumerate(self.compared):
            ours, theirs = (average_positions(kept[level].float()) for kept in (self._ours, self._theirs))
            fixed = F.adaptive_avg_pool2d(inside, (ours.shape[2], ours.shape[3])).flatten(1)
            error, overlap = compare(theirs.flatten(2), ours.flatten(2), fixed)
            terms.append((error + self._config.diversity * overlap, self._ours[level]))
        return terms

    def validated(
        self, network: nn.Module, step: int, metrics: Metrics, figures: dict[str, Figure]
    ) -> tuple[Metrics, dict[str, Figure]]:
        """Write the row of the figures of the validation split; in the last step with the cost of a frame."""
        with self._cost.paused():
            recipe, corpus = self._recipe, self._corpus
            self._wanted = self._wanted or take_figures(self._kind, self.teacher, corpus.split("val"), recipe)
            clips = take_figures(self._kind, network, corpus.split("val"), recipe)
            for name, figure in clips.items():
                figure["over teacher"] = figure["inside PSNR"] - self._wanted[name]["inside PSNR"]
            names = sorted({name for figure in clips.values() for name in figure})
            means = {name: _mean([one[name] for one in clips.values() if name in one]) for name in names}
            cost = self._cost.describe() | {
                "parameters": count_parameters(network), "extra parameters": count_parameters(self),
                "processor": describe_processor(),
            }  # fmt: skip
            if step == recipe.steps:
                networks = copy.deepcopy(network).cpu(), self._kind.load_teacher(recipe.teacher)
                cost |= graph_figures(*(self._kind.definition(one) for one in networks))
            made_by = recipe.run.name, recipe.seed, recipe.fixed, corpus.identity, describe_commit(ROOT), step
            ResultRow(*made_by, cost, means, clips).save_as(recipe.run / FIGURES_FILE)
        self._cost.save()
        if self._shown is not None:
            figures = figures | {f"masks-{step:05d}": self._plot()}
        return metrics | means | self.logged, figures

    def _plot(self) -> Figure:
        assert self._shown is not None
        masks = [
            rearrange(compare.shown[:SHOWN], "b m (h w) -> b m h w", h=average_positions(self._ours[level]).shape[2])
            for level, compare in enumerate(self.compared)
            if compare.shown is not None
        ]
        return plot_masks(*self._shown, masks)


def kept_at(kept: dict[int, Tensor], level: int) -> Any:
    """Make what keeps the features of a level."""

    def keep(features: Tensor) -> None:
        kept[level] = features

    return keep


def average_positions(features: Tensor) -> Tensor:
    """Average features (B, C, h, w) over squares, the smallest that leave at most MOST_POSITIONS of them."""
    side = 1
    while math.ceil(features.shape[2] / side) * math.ceil(features.shape[3] / side) > MOST_POSITIONS:
        side += 1
    return F.avg_pool2d(features, side, ceil_mode=True) if side > 1 else features


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def train(recipe: Any, corpus: PainterCorpus) -> None:
    """Train one arm. Raises InputError as the painter's trainer, and where several processes train."""
    from accelerate import PartialState

    if PartialState(cpu=recipe.device == "cpu").num_processes > 1:
        raise InputError("Painters are distilled by one process; start the command without accelerate launch.")
    corpus.kind.train(recipe, corpus.records, PainterDistiller(corpus.kind, corpus, recipe))
