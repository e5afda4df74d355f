"""Train the model of the mouth's inside on films: `python -m train.interior CONFIG [--dry-run]`. Run it
again to resume.

CONFIG is a TOML file over the recipe in train/interior/recipe.py. Each film has codes of its own for its teeth, its
light and the place of its teeth, which are learned with the model (generative latent optimisation, Bojanowski et al.
2018). Beside them an encoder learns to give codes of one frame, the source image, that draw the others. A run that has
ended makes its plates again."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

from kdtalker.core.errors import InputError
from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from kdtalker.weights.checkpoint import write_checkpoint
from train.data.films import find_films
from train.harness.auxiliary import AuxiliaryLoss
from train.harness.command import command
from train.harness.config import read_config
from train.harness.figures import Figure, save_figure
from train.harness.run import TrainingRun, main_process_first
from train.interior.batches import LEAST_FRAMES, MouthDataset
from train.interior.frames import MouthFrames, load_frames
from train.interior.loss import FilmCodes, InteriorLoss, misplacement
from train.interior.plan import plan
from train.interior.plates import fit_plates
from train.interior.recipe import PRESETS, InteriorRecipe
from train.interior.validation import validate_mouths

FRAMES_FOLDER = "frames"


def train(recipe: InteriorRecipe, films: list[MouthFrames], auxiliary: AuxiliaryLoss | None = None) -> None:
    """Train in one loop, resumed where the run was interrupted; auxiliary: a method that takes part. Raises InputError
    where the run was begun with another recipe or other data or the training split is empty, OutputError where the disk
    is full."""
    training, held_out = ([film for film in films if film.split == split] for split in ("train", "val"))
    if recipe.mirror:
        training += [film.mirror() for film in training]
    if not training:
        raise InputError(f"All {len(films)} films of use are of the split 'val'; there is nothing to learn from.")
    run = TrainingRun(recipe, {"films": len(training), "frames": sum(len(film.pictures) for film in training)})
    torch.manual_seed(recipe.seed)
    dataset, validation = (MouthDataset(split, recipe, run.rows, run.rank) for split in (training, held_out))
    if not dataset.usable or run.rows < recipe.views_a_film:
        raise InputError(
            f"{len(dataset.usable)} films show {LEAST_FRAMES} open mouths or more, and a batch has {run.rows} frames "
            f"of a process; wanted one film or more, and {recipe.views_a_film} frames or more."
        )
    auxiliary = auxiliary or AuxiliaryLoss()
    model = MouthInterior(recipe.code_size, recipe.style_size, recipe.width)
    codes = FilmCodes(len(training), dataset.frames, recipe)
    with torch.no_grad():
        model.mean[:, 3:] = -1 - 1.5 * misplacement()
    auxiliary.begin(model, run.accelerator.device)
    averaged = copy.deepcopy(model).eval().requires_grad_(False).to(run.accelerator.device)
    compute_loss, optimiser = run.accelerator.prepare(
        InteriorLoss(model, codes, recipe),
        torch.optim.Adam(
            [*parameter_groups(model, codes, recipe), *auxiliary.groups], recipe.learning_rate, betas=(0.9, 0.99)
        ),
    )
    run.resume(model=model, codes=codes, averaged=averaged, optimiser=optimiser.optimizer, **auxiliary.learners)
    auxiliary.watch(model, run.step)

    def validate() -> tuple[dict[str, float], dict[str, Figure]]:
        write_checkpoint(recipe.run / "interior.safetensors", averaged.state_dict(), averaged.dimensions, half=True)
        return auxiliary.validated(averaged, run.step, *validate_mouths(averaged, validation))

    for batch in run.batches(dataset, optimiser):
        loss, encoded, drawn = compute_loss(batch)
        loss = auxiliary.add(run.step, loss, drawn, batch)
        optimiser.zero_grad()
        run.accelerator.backward(loss)
        optimiser.step()
        run.update_ema(averaged, model)
        run.end_step(encoded, validate)
    if run.accelerator.is_main_process and recipe.plates:
        fit_plates(averaged, codes, dataset, recipe)
        metrics, figures = validate()
        print("with plates:", ", ".join(f"{name} {value:.3g}" for name, value in metrics.items()))
        for name, figure in figures.items():
            save_figure(figure, recipe.run / f"{name}.png")
    run.accelerator.wait_for_everyone()
    run.end()


def parameter_groups(model: MouthInterior, codes: FilmCodes, recipe: InteriorRecipe) -> list[dict[str, object]]:
    """Group parameters by their share of the learning rate."""
    textures = [model.mean, model.basis]
    networks = [value for name, value in model.named_parameters() if name not in ("mean", "basis")]
    return [
        {"params": textures, "rate": recipe.texture_rate},
        {"params": networks},
        {"params": [codes.code, codes.style], "rate": recipe.code_rate},
        {"params": [codes.place, codes.jitter], "rate": recipe.place_rate},
    ]


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Train the model of the mouth's inside on films.")
    parser.add_argument("config", type=Path, help="TOML file: films, tables, run and what else is to differ")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes")
    options = parser.parse_args()
    recipe = read_config(options.config, PRESETS)
    films = find_films(list(recipe.films), list(recipe.tables))
    if options.dry_run:
        print(plan(recipe, films, recipe.run / FRAMES_FOLDER))
        return
    with main_process_first(recipe):
        frames = load_frames(films, recipe.run / FRAMES_FOLDER)
    train(recipe, frames)


if __name__ == "__main__":
    main()
