"""Train the mesh renderer's painter of eyelids: `python -m train.mesh CONFIG [--dry-run]`. Run it again to resume.

CONFIG is a TOML file over the preset of train/painters/recipe.py, or just its name, `eyes`; films, tables, folder and
steps can be given on the command line as well. `accelerate launch -m train.mesh CONFIG` runs it on several devices or
machines.

A painter maps warped parts to real ones (train/painters/pairs.py makes the pairs), by an L1 loss on colours and
gradients and later also by a patch discriminator (hinge loss; Isola et al. 2017), for sharp lashes."""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import torch

from kdtalker.core.errors import InputError
from kdtalker.renderers.mesh.eyes.parts import EYES
from kdtalker.renderers.mesh.eyes.unet import PartUNet
from kdtalker.weights.checkpoint import write_checkpoint
from train.data.films import find_films
from train.harness.auxiliary import AuxiliaryLoss
from train.harness.command import command
from train.harness.config import read_config
from train.harness.figures import Figure, Metrics
from train.harness.run import TrainingRun, main_process_first
from train.painters.batches import PairDataset
from train.painters.loss import PatchDiscriminator, composite, discriminator_loss, generator_loss, reconstruction_loss
from train.painters.pairs import Pairs, load_pairs
from train.painters.plan import plan
from train.painters.recipe import PRESETS, PainterRecipe
from train.painters.validation import painter_metrics, plot_parts

PAIRS_FOLDER = "pairs"


def train(recipe: PainterRecipe, pairs: list[Pairs], auxiliary: AuxiliaryLoss | None = None) -> None:
    """Train in one loop, resumed where the run was interrupted; auxiliary: a method that takes part. Raises InputError
    where the run was begun with another recipe or other data or the training split is empty, OutputError where the disk
    is full."""
    training, validation = ([film for film in pairs if film.split == split] for split in ("train", "val"))
    if not training:
        raise InputError(f"All {len(pairs)} films of use are of the split 'val'; there is nothing to learn from.")
    run = TrainingRun(recipe, {"films": len(training), "pairs": sum(len(film.which) for film in training)})
    auxiliary = auxiliary or AuxiliaryLoss()
    torch.manual_seed(recipe.seed)
    painter = PartUNet(EYES[0].side_px, recipe.widths)
    auxiliary.begin(painter, run.accelerator.device)
    painter = painter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    critic = PatchDiscriminator()
    averaged = copy.deepcopy(painter).eval().requires_grad_(False).to(run.accelerator.device)
    trained, judge, paints, judges = run.accelerator.prepare(
        painter,
        critic,
        torch.optim.AdamW(
            [{"params": painter.parameters()}, *auxiliary.groups], recipe.learning_rate, betas=(0.9, 0.99)
        ),
        torch.optim.AdamW(critic.parameters(), recipe.learning_rate, betas=(0.5, 0.99)),
    )
    run.resume(
        painter=painter, critic=critic, averaged=averaged, paints=paints.optimizer, judges=judges.optimizer,
        **auxiliary.learners,
    )  # fmt: skip
    auxiliary.watch(painter, run.step)

    def validated() -> tuple[Metrics, dict[str, Figure]]:
        return auxiliary.validated(averaged, run.step, *validate(recipe, averaged, validation))

    for batch in run.batches(PairDataset(training, recipe, run.rows, run.rank), paints, judges):
        made, covers = composite(trained, batch)
        loss = reconstruction = reconstruction_loss(made, covers, batch, recipe)
        if adversarial_weight := recipe.adversarial_weight(run.step):
            judge_loss = discriminator_loss(judge, made, batch)
            judges.zero_grad()
            run.accelerator.backward(judge_loss)
            judges.step()
            loss = loss + adversarial_weight * generator_loss(critic, made, batch, recipe)
        loss = auxiliary.add(run.step, loss, made, batch)
        paints.zero_grad()
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(trained.parameters(), recipe.clip)
        paints.step()
        run.update_ema(averaged, painter)
        run.end_step(reconstruction, validated)
    run.end()


def validate(recipe: PainterRecipe, painter: PartUNet, validation: list[Pairs]) -> tuple[Metrics, dict[str, Figure]]:
    """Save the EMA painter; return its metrics on the validation split and a plot of painted parts."""
    write_checkpoint(recipe.run / "eyes.safetensors", painter.state_dict(), painter.dimensions, half=True)
    return painter_metrics(painter, validation), {"painted": plot_parts(painter, validation)} if validation else {}


def read_recipe(options: argparse.Namespace) -> PainterRecipe:
    """Read the config, with the command line over it. Raises InputError as `read_config` does."""
    recipe = PRESETS.get(str(options.config)) or read_config(options.config, PRESETS)
    given = {"films": tuple(options.films), "tables": tuple(options.table), "run": options.out, "steps": options.steps}
    return replace(recipe, **{name: value for name, value in given.items() if value})


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Train a painter on films.")
    parser.add_argument(
        "config", type=Path, help="TOML file: preset, films, run and what else is to differ; or a preset"
    )
    parser.add_argument("films", type=Path, nargs="*", help="films, or folders of films")
    parser.add_argument("--table", type=Path, nargs="+", action="extend", default=[], help="CSV: file, speaker, split")
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes, memory")
    options = parser.parse_args()
    recipe = read_recipe(options)
    films = find_films(list(recipe.films), list(recipe.tables))
    if options.dry_run:
        print(plan(recipe, films, recipe.run / PAIRS_FOLDER))
    else:
        with main_process_first(recipe):
            pairs = load_pairs(films, EYES, recipe.run / PAIRS_FOLDER)
        train(recipe, pairs)


if __name__ == "__main__":
    main()
