"""Train the network that shades the skin around the mouth: `python -m train.shading CONFIG [--dry-run]`. Run it again
to resume. CONFIG is a TOML file over the recipe in train/shading/recipe.py."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

from kdtalker.core.errors import InputError
from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from kdtalker.weights.checkpoint import write_checkpoint
from train.data.films import Film, find_films
from train.harness.auxiliary import AuxiliaryLoss
from train.harness.command import command
from train.harness.config import read_config
from train.harness.figures import Figure
from train.harness.plan import difference_line, network_lines
from train.harness.run import TrainingRun, main_process_first
from train.shading.batches import ShadingDataset
from train.shading.loss import shading_loss
from train.shading.pairs import ShadingPairs, load_pairs
from train.shading.recipe import PRESETS, ShadingRecipe
from train.shading.validation import validate_shading

PAIRS_FOLDER = "pairs"


def train(recipe: ShadingRecipe, films: list[ShadingPairs], auxiliary: AuxiliaryLoss | None = None) -> None:
    """Train in one loop, resumed where the run was interrupted; auxiliary: a method that takes part. Raises InputError
    where the run was begun with another recipe or other data or the training split is empty, OutputError where the disk
    is full."""
    training, held_out = ([film for film in films if film.split == split] for split in ("train", "val"))
    if not training:
        raise InputError(f"All {len(films)} films of use are of the split 'val'; there is nothing to learn from.")
    run = TrainingRun(recipe, {"films": len(training), "pairs": sum(len(film.real) for film in training)})
    auxiliary = auxiliary or AuxiliaryLoss()
    torch.manual_seed(recipe.seed)
    network = RatioNetwork(recipe.widths)
    auxiliary.begin(network, run.accelerator.device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False).to(run.accelerator.device)
    groups = [{"params": network.parameters()}, *auxiliary.groups]
    trained, optimiser = run.accelerator.prepare(
        network, torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.99))
    )
    run.resume(network=network, averaged=averaged, optimiser=optimiser.optimizer, **auxiliary.learners)
    auxiliary.watch(network, run.step)

    def validate() -> tuple[dict[str, float], dict[str, Figure]]:
        write_checkpoint(recipe.run / "shading.safetensors", averaged.state_dict(), averaged.dimensions, half=True)
        return auxiliary.validated(averaged, run.step, *validate_shading(averaged, held_out))

    for batch in run.batches(ShadingDataset(training, recipe, run.rows, run.rank), optimiser):
        loss, shaded = shading_loss(trained, batch, recipe)
        total = auxiliary.add(run.step, loss, shaded, batch)
        optimiser.zero_grad()
        run.accelerator.backward(total)
        run.accelerator.clip_grad_norm_(trained.parameters(), recipe.clip)
        optimiser.step()
        run.update_ema(averaged, network)
        run.end_step(loss, validate)
    run.end()


def plan(recipe: ShadingRecipe, films: list[Film]) -> str:
    """Format data, sizes and differences from the preset, as lines to print."""
    counts = {split: sum(film.split == split for film in films) for split in ("train", "val")}
    return "\n".join(
        [
            f"films         {counts['train']} to learn from, {counts['val']} held out",
            *network_lines("shading", RatioNetwork(recipe.widths)),
            f"steps         {recipe.steps}, {recipe.batch} pairs each",
            difference_line(recipe, PRESETS),
        ]
    )


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Train the network that shades the skin around the mouth on films.")
    parser.add_argument("config", type=Path, help="TOML file: films, tables, run and what else is to differ")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes")
    options = parser.parse_args()
    recipe = read_config(options.config, PRESETS)
    films = find_films(list(recipe.films), list(recipe.tables))
    if options.dry_run:
        print(plan(recipe, films))
        return
    with main_process_first(recipe):
        pairs = load_pairs(films, recipe.run / PAIRS_FOLDER)
    train(recipe, pairs)
