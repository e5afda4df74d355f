"""Define the recipe of the mouth's inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.harness.training import Training, number


@dataclass(frozen=True)
class InteriorRecipe(Training):
    """Hold the settings of a training of the mouth's inside. Those of Training, and:

    films: films, or folders of films; tables: CSV with file, speaker, split. A step sees views_a_film frames of each of
    batch / views_a_film films, the first of them as the source image: any frame in closed_share of the cases, else one
    with an open mouth. code_size: components of the texture model; style_size: numbers that describe a film's light;
    width: channels of the network that shades. texture_rate, code_rate, place_rate: learning rates of textures, of
    codes and of displacements, as multiples of learning_rate. mirror: flipped copies of all films are added; grey:
    share of greyscale films (data augmentation). plates: sharp details of teeth textures that are kept, each of one
    film, of plate_films that are tried with plate_steps of gradient descent (train/interior/plates.py).

    Weights of the loss, in levels 0..1: encoded_weight of frames drawn by what the encoder makes of the source image,
    beside those drawn by the film's own codes; gradient_weight of the errors of image gradients; texture_weight of the
    difference in local gradient magnitude, which blur lowers; alpha_weight, on the alpha of the textures, and
    misplaced_weight, on alpha where that jaw's teeth are not; code_weight, style_weight and place_weight on squares:
    Gaussian priors.
    """

    run: Path = Path("runs/interior")
    films: tuple[Path, ...] = (Path("films"),)
    tables: tuple[Path, ...] = ()
    steps: int = number(2800, 1)
    batch: int = number(27, 2)
    views_a_film: int = number(3, 2)
    learning_rate: float = number(1.5e-3, 0)
    warm_up_steps: int = number(100, 0)
    validate_every: int = number(500, 1)
    code_size: int = number(12, 1)
    style_size: int = number(8, 1)
    width: int = number(32, 1)
    texture_rate: float = number(13.0, 0)
    code_rate: float = number(13.0, 0)
    place_rate: float = number(100.0, 0)
    plates: int = number(8, 0)
    plate_films: int = number(24, 0)
    plate_steps: int = number(120, 1)
    closed_share: float = number(0.5, 0, 1)
    mirror: bool = True
    grey: float = number(0.15, 0, 1)
    encoded_weight: float = number(1.0, 0)
    gradient_weight: float = number(1.5, 0)
    texture_weight: float = number(1.5, 0)
    alpha_weight: float = number(5e-4, 0)
    misplaced_weight: float = number(1e-2, 0)
    code_weight: float = number(1e-3, 0)
    style_weight: float = number(2e-3, 0)
    place_weight: float = number(1e-3, 0)


PRESETS = {
    "interior": InteriorRecipe(),
    "interior-small": InteriorRecipe(width=16),  # 0.3 of its operations, 0.45 of its time
}
