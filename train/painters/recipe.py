"""Define the recipe of the painter of eyelids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.harness.training import Training, number


@dataclass(frozen=True)
class PainterRecipe(Training):
    """Hold the settings of a painter's training. Those of Training, and:

    films: films, or folders of films; tables: CSV with file, speaker, split. A row of the batch is a pair. widths:
    channels of the painter's levels. unmoved_share: sampling weight of a pair whose opening has not changed.
    Augmentation: grey, share of greyscale pairs; most_grain, maximal film grain in levels, on half of the pairs.

    Weights of the loss: around the opening; of gradients; cover_weight, on alpha inside the lids, where the warp's own
    grain is wanted; critic_weight of the adversarial loss and match_weight of feature
    matching, from `critic_from` on, in full after `critic_rise` more, both as shares of all steps.

    Raises InputError for a value outside its range.
    """

    run: Path = Path("runs/eyes")
    precision: str = "bfloat16"
    steps: int = number(5000, 1)
    batch: int = number(16, 1)
    learning_rate: float = number(5e-4, 0)
    validate_every: int = number(500, 1)
    films: tuple[Path, ...] = (Path("films"),)
    tables: tuple[Path, ...] = ()
    widths: tuple[int, ...] = (16, 32, 64, 96)
    unmoved_share: float = number(0.02, 0, 1)
    grey: float = number(0.15, 0, 1)
    most_grain: float = number(14.0, 0, 255)
    around_weight: float = number(2.0, 0)
    gradient_weight: float = number(1.0, 0)
    cover_weight: float = number(0.04, 0)
    critic_from: float = number(0.35, 0, 1)
    critic_rise: float = number(0.1, 1e-6, 1)
    critic_weight: float = number(0.01, 0)
    match_weight: float = number(10.0, 0)

    def adversarial_weight(self, step: int) -> float:
        """Compute the weight 0..1 of the adversarial loss at a step, a linear ramp."""
        return min(1.0, max(0.0, (step / self.steps - self.critic_from) / self.critic_rise))


PRESETS = {
    "eyes": PainterRecipe(),
    "eyes-small": PainterRecipe(widths=(8, 16, 32, 56)),  # a third of its operations
}
