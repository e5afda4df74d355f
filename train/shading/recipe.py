"""Define the recipe of the shading network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.harness.training import Training, number


@dataclass(frozen=True)
class ShadingRecipe(Training):
    """Hold the settings of a training of the shading network. Those of Training, and:

    films: films, or folders of films; tables: CSV with file, speaker, split. A step sees pairs_a_film pairs of each of
    batch / pairs_a_film films. widths: channels of the network's levels. mirror: half of the films are flipped
    horizontally; grey: share of greyscale ones (data augmentation). Weights of the loss, in levels 0..1:
    gradient_weight of the errors of image gradients, texture_weight of the difference in local gradient magnitude,
    which keeps lips and stubble as sharp as they are, ratio_weight on squares of the log ratio.
    """

    run: Path = Path("runs/shading")
    films: tuple[Path, ...] = (Path("films"),)
    tables: tuple[Path, ...] = ()
    steps: int = number(2000, 1)
    batch: int = number(32, 1)
    pairs_a_film: int = number(4, 1)
    learning_rate: float = number(1e-3, 0)
    warm_up_steps: int = number(100, 0)
    ema: float = number(0.995, 0, 1)
    validate_every: int = number(500, 1)
    widths: tuple[int, ...] = (32, 48, 64)
    mirror: bool = True
    grey: float = number(0.15, 0, 1)
    gradient_weight: float = number(0.5, 0)
    texture_weight: float = number(0.7, 0)
    ratio_weight: float = number(2e-3, 0)


PRESETS = {
    "shading": ShadingRecipe(),
    "shading-small": ShadingRecipe(widths=(16, 32, 48)),  # 0.37 of its operations, 0.4 of its time
}
