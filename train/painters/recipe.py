"""What a training of a painter is made of: one frozen dataclass, and a preset for each part of the face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtalker.renderers.mesh.parts import EYES, MOUTH
from train.harness.training import Training, number

PARTS = {"mouth": (MOUTH,), "eyes": EYES}


@dataclass(frozen=True)
class PainterRecipe(Training):
    """Every choice of a training; the defaults are the mouth's. Those of Training, and:

    part: "mouth" or "eyes". films: films, or folders of films; tables: CSV with file, speaker, split. A row of the
    batch is a pair of frames. widths: of the painter's levels. keeps_inside: whether the warp's own inside is worth
    keeping. unmoved_share: of the crop; a pair counts by this and by how much its opening has changed. grey: share of
    the pairs that lose their colours. most_grain: levels; half of the pairs stay as they are.

    Weights of the loss: inside, around the opening; of gradients; cover_weight, on painting where the photograph's own
    grain is wanted: outside the lips, inside the lids; the critic's verdict and how far its features match, from
    `critic_from` on, in full after `critic_rise` more, both as shares of all steps.

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

    def strictness(self, step: int) -> float:
        """How much of the critic counts, 0..1."""
        return min(1.0, max(0.0, (step / self.steps - self.critic_from) / self.critic_rise))


PRESETS = {
    "mouth": PainterRecipe(),
    "eyes": PainterRecipe(run=Path("runs/eyes"), part="eyes", widths=(16, 32, 64, 96), keeps_inside=True, steps=5000),
}
