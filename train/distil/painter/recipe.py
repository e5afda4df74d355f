"""Define the recipes of small painters that learn from the shipped ones: one arm of the comparison each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from train.distil.methods.acam import FIXED, MASKS, ACAMConfig
from train.harness.training import Training, number
from train.interior.recipe import PRESETS as INTERIOR_PRESETS
from train.interior.recipe import InteriorRecipe
from train.painters.recipe import PRESETS as EYES_PRESETS
from train.painters.recipe import PainterRecipe
from train.shading.recipe import PRESETS as SHADING_PRESETS
from train.shading.recipe import ShadingRecipe

METHODS = ("none", "output", "features")  # nothing; L1 to the teacher's painting; error of features under masks


@dataclass(frozen=True)
class PaintingKD(ACAMConfig):
    """Choose what is added to a painter's loss: a method, and of ACAMConfig the masks of "features", of which "fixed"
    is the map of the part in a batch, and when it is added. share: the gradient of each term, at the student's tensor
    that it compares, over that of the task's loss there."""

    method: str = "features"
    share: float = number(0.3, 0)
    known_masks: ClassVar[tuple[str, ...]] = (*MASKS, FIXED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("method", METHODS)


@dataclass(frozen=True)
class DistilledPainter(Training):
    """Add to a painter's recipe: records, a folder of what is cut from the films, made where it is missing; teacher, a
    checkpoint, by default the package's; distil, the method."""

    records: Path = Path("runs/painter/records")
    teacher: Path = Path()
    distil: PaintingKD = field(default_factory=PaintingKD)


@dataclass(frozen=True)
class InteriorStudent(InteriorRecipe, DistilledPainter):
    """Hold the settings of a student that draws the inside of the mouth. It has the teacher's teeth, plates and
    encoder, which cost nothing a frame; what shades them is learned."""

    width: int = number(INTERIOR_PRESETS["interior-small"].width, 1)
    plates: int = number(0, 0, 0)


@dataclass(frozen=True)
class ShadingStudent(ShadingRecipe, DistilledPainter):
    """Hold the settings of a student that shades the skin around the mouth."""

    widths: tuple[int, ...] = SHADING_PRESETS["shading-small"].widths


@dataclass(frozen=True)
class EyesStudent(PainterRecipe, DistilledPainter):
    """Hold the settings of a student that paints lids."""

    widths: tuple[int, ...] = EYES_PRESETS["eyes-small"].widths


PRESETS: dict[str, DistilledPainter] = {
    "interior": InteriorStudent(),
    "shading": ShadingStudent(),
    "eyes": EyesStudent(),
}
