"""Define the recipe of a painter: one frozen dataclass, a preset for each part of the face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtalker.renderers.mesh.parts import EYES, MOUTH
from train.harness.training import Training, number

PARTS = {"mouth": (MOUTH,), "eyes": EYES}


@dataclass(frozen=True)
class PainterRecipe(Training):
    """Hold the settings of a painter's training; defaults are the mouth's. Those of Training, and:

    part: "mouth" or "eyes". films: films, or folders of films; tables: CSV with file, speaker, split. A row of the
    batch is a pair. widths: channels of the painter's levels. keeps_inside: whether the painter may keep the warp
    inside the opening. unmoved_share: sampling weight of a pair whose opening has not changed. Augmentation: grey,
    share of greyscale pairs; most_grain, maximal film grain in levels, on half of the pairs.

    Weights of the loss: inside and around the opening; of gradients; cover_weight, on alpha where the warp's own grain
    is wanted: outside the lips, inside the lids; critic_weight of the adversarial loss and match_weight of feature
    matching, from `critic_from` on, in full after `critic_rise` more, both as shares of all steps.

    Raises InputError for a value outside its range.
    """

    run: Path = Path("runs/mouth")
    precision: str = "bfloat16"
    steps: int = number(11_000, 1)
    batch: int = number(16, 1)
    learning_rate: float = number(5e-4, 0)
    validate_every: int = number(500, 1)
    part: str = "mouth"
    films: tuple[Path, ...] = (Path("films"),)
    tables: tuple[Path, ...] = ()
    widths: tuple[int, ...] = (24, 48, 96, 160)
    keeps_inside: bool = False
    unmoved_share: float = number(0.02, 0, 1)
    grey: float = number(0.15, 0, 1)
    most_grain: float = number(14.0, 0, 255)
    inside_weight: float = number(5.0, 0)
    around_weight: float = number(2.0, 0)
    gradient_weight: float = number(1.0, 0)
    cover_weight: float = number(0.04, 0)
    critic_from: float = number(0.35, 0, 1)
    critic_rise: float = number(0.1, 1e-6, 1)
    critic_weight: float = number(0.01, 0)
    match_weight: float = number(10.0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_word("part", PARTS)

    def adversarial_weight(self, step: int) -> float:
        """Compute the weight 0..1 of the adversarial loss at a step, a linear ramp."""
        return min(1.0, max(0.0, (step / self.steps - self.critic_from) / self.critic_rise))


PRESETS = {
    "mouth": PainterRecipe(),
    "eyes": PainterRecipe(run=Path("runs/eyes"), part="eyes", widths=(16, 32, 64, 96), keeps_inside=True, steps=5000),
}
