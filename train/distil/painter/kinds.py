"""The networks that can be distilled: how each is built, run, trained, exported and measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.errors import InputError
from kdtalker.renderers.mesh.eyes.parts import EYES
from kdtalker.renderers.mesh.eyes.unet import PartUNet
from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from kdtalker.weights.find import find
from train.data.films import Film
from train.distil.painter.recipe import EyesStudent, InteriorStudent, ShadingStudent
from train.harness.auxiliary import AuxiliaryLoss
from train.harness.run import to_device
from train.interior import frames, loss
from train.interior import trainer as interior_trainer
from train.interior.batches import MouthBatch, MouthDataset
from train.interior.validation import draw_source
from train.painters import pairs as eye_pairs
from train.painters import trainer as eyes_trainer
from train.painters.batches import PainterBatch
from train.painters.loss import composite
from train.painters.validation import PAIR_STRIDE, paint
from train.shading import pairs as mouth_pairs
from train.shading import trainer as shading_trainer
from train.shading.batches import ShadingBatch, batch_of
from train.shading.loss import shade, skin_weight
from train.tools.export_graphs import Definition, define_eyes, define_interior_cells, define_shading

LIDS_PX = 5  # by which the openings of eyes are widened to the area that lids cover
Keep = Callable[[Tensor], None]


@dataclass(frozen=True)
class PaintedClip:
    """Hold painted and real pictures of a film, both (N, 3, H, W) 0..1; inside (N, 1, H, W) 0..1, where the
    painter counts; follows (N,), whether a frame comes after the one before it, in the same take."""

    painted: Tensor
    real: Tensor
    inside: Tensor
    follows: NDArray[np.bool_]


class PainterKind(ABC):
    """Describe one of the networks; batches and records are those of its trainer."""

    weights: str  # file of the package

    @abstractmethod
    def build(self, recipe: Any) -> nn.Module:
        """Build the network of a recipe."""

    @abstractmethod
    def load(self, path: Path) -> nn.Module:
        """Load a checkpoint for inference. Raises InputError where it is missing or another model's."""

    @abstractmethod
    def widths(self, network: Any) -> list[int]:
        """Return the channels of the features that are distilled."""

    @abstractmethod
    def record(self, network: Any, keep: list[Keep]) -> None:
        """Give these features (B, C, h, w) to `keep` in every forward pass."""

    @abstractmethod
    def paint(self, network: Any, batch: Any) -> Tensor:
        """Paint a batch (B, 3, H, W) in the units of its real pictures."""

    @abstractmethod
    def inside(self, batch: Any) -> Tensor:
        """Return the map (B, 1, H, W) 0..1 of where the painter counts."""

    @abstractmethod
    def clips(self, network: Any, records: list[Any], recipe: Any) -> Iterator[PaintedClip]:
        """Paint the films of records as the program does."""

    @abstractmethod
    def definition(self, network: Any) -> Definition:
        """Define the graph that the program runs for every frame."""

    @abstractmethod
    def load_records(self, films: list[Film], folder: Path) -> list[Any]:
        """Load the records of films; missing ones are made."""

    @abstractmethod
    def train(self, recipe: Any, records: list[Any], auxiliary: AuxiliaryLoss) -> None:
        """Train the network of a recipe."""

    def begin(self, student: Any, teacher: Any) -> None:  # noqa: B027 (most begin with nothing)
        """Give a student what it has of its teacher from the begin."""

    def load_teacher(self, path: Path) -> nn.Module:
        """Load the teacher, by default the package's."""
        return self.load(find(self.weights) if path == Path() else path)


class InteriorKind(PainterKind):
    """The inside of the mouth. Features are what enters the head of the network that shades."""

    weights = "mesh_interior.safetensors"
    learned = ("base_colour", "global_net", "modulation", "placement", "convs", "head")  # the others stay the teacher's

    def build(self, recipe: InteriorStudent) -> MouthInterior:
        return MouthInterior(recipe.code_size, recipe.style_size, recipe.width)

    def load(self, path: Path) -> MouthInterior:
        return MouthInterior.load(path)

    def widths(self, network: MouthInterior) -> list[int]:
        return [network.width]

    def record(self, network: MouthInterior, keep: list[Keep]) -> None:
        network.head.register_forward_pre_hook(lambda _, inputs: keep[0](inputs[0]))

    def paint(self, network: MouthInterior, batch: MouthBatch) -> Tensor:
        views = int((batch.film == batch.film[0]).sum())
        return loss.draw(network, batch, loss.encode(network, batch, views))[1].composite()

    def inside(self, batch: MouthBatch) -> Tensor:
        return batch.mask

    def clips(
        self, network: MouthInterior, records: list[frames.MouthFrames], recipe: InteriorStudent
    ) -> Iterator[PaintedClip]:
        dataset = MouthDataset(records, recipe, recipe.batch, 0)
        for film in dataset.usable:
            batch = to_device(dataset.all_open(film), next(network.parameters()).device)
            painted = batch.real + batch.mask * (draw_source(network, batch) - batch.real)
            yield PaintedClip(painted, batch.real, batch.mask, np.arange(len(painted)) > 0)

    def definition(self, network: MouthInterior) -> Definition:
        return define_interior_cells(network)

    def load_records(self, films: list[Film], folder: Path) -> list[frames.MouthFrames]:
        return frames.load_frames(films, folder)

    def train(self, recipe: InteriorStudent, records: list[frames.MouthFrames], auxiliary: AuxiliaryLoss) -> None:
        interior_trainer.train(recipe, records, auxiliary)

    def begin(self, student: MouthInterior, teacher: MouthInterior) -> None:
        """Give a student the teacher's teeth, plates and encoder, frozen, and the layers that have the same shape.

        Raises InputError for a student of other codes."""
        ours, theirs = student.dimensions, teacher.dimensions
        for name in ("code_size", "style_size"):
            if ours[name] != theirs[name]:
                raise InputError(f"The teacher's {name} is {theirs[name]}, the recipe's {ours[name]}; take the same.")
        student.set_plates(teacher.plates.clone(), teacher.plate_codes.clone())
        state = teacher.state_dict()
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if weight.shape == state[name].shape:
                    weight.copy_(state[name])
                weight.requires_grad_(name.split(".")[0] in self.learned)


class ShadingKind(PainterKind):
    """The light on the skin around the mouth. Features are those of the decoder's levels below the finest."""

    weights = "mesh_shading.safetensors"

    def build(self, recipe: ShadingStudent) -> RatioNetwork:
        return RatioNetwork(recipe.widths)

    def load(self, path: Path) -> RatioNetwork:
        return RatioNetwork.load(path)

    def widths(self, network: RatioNetwork) -> list[int]:
        return network.dimensions["widths"][1:-1]

    def record(self, network: RatioNetwork, keep: list[Keep]) -> None:
        _record_decoder(network.decoder, keep)

    def paint(self, network: RatioNetwork, batch: ShadingBatch) -> Tensor:
        return shade(network, batch)[0]

    def inside(self, batch: ShadingBatch) -> Tensor:
        return skin_weight(batch)

    def clips(
        self, network: RatioNetwork, records: list[mouth_pairs.ShadingPairs], recipe: ShadingStudent
    ) -> Iterator[PaintedClip]:
        """Paint as the program does; pairs are in no order of time."""
        for pairs in records:
            batch = to_device(batch_of(pairs, np.arange(len(pairs.real))), next(network.parameters()).device)
            skin = skin_weight(batch)
            painted = batch.warped + skin * (self.paint(network, batch) - batch.warped)
            yield PaintedClip(painted, batch.real, skin, np.zeros(len(painted), bool))

    def definition(self, network: RatioNetwork) -> Definition:
        return define_shading(network)

    def load_records(self, films: list[Film], folder: Path) -> list[mouth_pairs.ShadingPairs]:
        return mouth_pairs.load_pairs(films, folder)

    def train(self, recipe: ShadingStudent, records: list[mouth_pairs.ShadingPairs], auxiliary: AuxiliaryLoss) -> None:
        shading_trainer.train(recipe, records, auxiliary)


class EyesKind(PainterKind):
    """The lids. Features are those of the decoder's levels below the finest."""

    weights = "mesh_eyes.safetensors"

    def build(self, recipe: EyesStudent) -> PartUNet:
        return PartUNet(EYES[0].side_px, recipe.widths)

    def load(self, path: Path) -> PartUNet:
        return PartUNet.load(path)

    def widths(self, network: PartUNet) -> list[int]:
        widths: Any = network.dimensions["widths"]
        return list(widths[1:-1])

    def record(self, network: PartUNet, keep: list[Keep]) -> None:
        _record_decoder(network.decoder, keep)

    def paint(self, network: PartUNet, batch: PainterBatch) -> Tensor:
        return composite(network, batch)[0]

    def inside(self, batch: PainterBatch) -> Tensor:
        openings = (batch.warped[:, 3:5].amax(1, keepdim=True) + 1) / 2
        return F.max_pool2d(openings, 2 * LIDS_PX + 1, 1, LIDS_PX)

    def clips(self, network: PartUNet, records: list[eye_pairs.Pairs], recipe: EyesStudent) -> Iterator[PaintedClip]:
        """Paint as the program does; frames follow each other where they are warped from the same picture."""
        for pairs in records:
            rows = np.argsort(pairs.which, kind="stable")[::PAIR_STRIDE]
            batch, painted = paint(network, pairs, rows)
            follows = np.diff(pairs.which[rows], prepend=-1) == 0
            yield PaintedClip((painted + 1) / 2, (batch.real + 1) / 2, self.inside(batch), follows)

    def definition(self, network: PartUNet) -> Definition:
        return define_eyes(network)

    def load_records(self, films: list[Film], folder: Path) -> list[eye_pairs.Pairs]:
        return eye_pairs.load_pairs(films, EYES, folder)

    def train(self, recipe: EyesStudent, records: list[eye_pairs.Pairs], auxiliary: AuxiliaryLoss) -> None:
        eyes_trainer.train(recipe, records, auxiliary)


KINDS: Mapping[type[Any], PainterKind] = {
    InteriorStudent: InteriorKind(),
    ShadingStudent: ShadingKind(),
    EyesStudent: EyesKind(),
}


def _record_decoder(decoder: nn.ModuleList, keep: list[Keep]) -> None:
    """Give the outputs of the levels of a decoder below the finest, whose maps are too large for attention."""
    for level, kept in zip(list(decoder)[1:], keep, strict=True):
        level.register_forward_hook(lambda _, __, output, kept=kept: kept(output))
