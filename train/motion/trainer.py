"""Train the motion model: `python -m train.motion CONFIG [--dry-run]`. Run it again to resume.

CONFIG is a TOML file over one of the presets of train/motion/recipe.py. `accelerate launch -m train.motion CONFIG` runs
it on several devices or machines.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from kdtalker import __version__
from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.core.protocols import Speech
from kdtalker.diffusion.calibration import Calibration
from kdtalker.diffusion.denoiser import Denoiser, load_denoiser
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.model import DiffusionMotionModel
from train.harness.command import command
from train.harness.config import read_config
from train.harness.figures import Figure
from train.harness.run import TrainingRun, main_process_first
from train.motion.calibration import calibrate, can_calibrate, choose_clips
from train.motion.dataset import Clip, Corpus
from train.motion.loss import DenoisingLoss
from train.motion.plan import plan
from train.motion.recipe import PRESETS, Recipe
from train.motion.sliding import SlidingWindowDataset
from train.motion.validation import motion_metrics, plot_motion, sample_clips
from train.motion.windows import MotionBatch, WindowDataset

MODEL_FILE = "motion.safetensors"


def train(recipe: Recipe, corpus: Corpus) -> None:
    """Train in one loop, resumed where the run was interrupted. Raises InputError where the run was begun with another
    recipe or other data, OutputError where the disk is full."""
    run = TrainingRun(recipe, corpus.fingerprint)
    torch.manual_seed(recipe.seed)
    denoiser = begin(recipe)
    windows = make_windows(recipe, corpus, run)
    averaged = copy.deepcopy(denoiser).eval().requires_grad_(False).to(run.accelerator.device)
    model = DiffusionMotionModel(
        averaged, corpus.normalisation, recipe.space, card(recipe, corpus), begun_calibration(recipe)
    )
    objective = DenoisingLoss(denoiser, recipe, corpus)
    trained, optimiser = run.accelerator.prepare(objective, make_optimiser(objective, recipe))
    if can_calibrate(model) and not recipe.lookahead:
        choose_clips(calibration_clips(recipe, corpus))  # to say so now, not after the last step, where there are none
    run.resume(denoiser=denoiser, averaged=averaged, optimiser=optimiser.optimizer)
    for batch in run.batches(windows, optimiser):
        loss = trained(*vars(batch).values())
        optimiser.zero_grad()
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(trained.parameters(), recipe.clip)
        optimiser.step()
        run.update_ema(averaged, denoiser)
        run.end_step(loss, lambda: validate(recipe, corpus, model))
    if run.accelerator.is_main_process and not recipe.lookahead:
        save_calibrated(recipe, corpus, model)
    run.end()


def begin(recipe: Recipe) -> Denoiser:
    """Make the network to train, with random weights or those of the recipe's begin_with."""
    if recipe.begin_with == Path():
        return Denoiser(recipe.model)
    begun = load_denoiser(recipe.begin_with, recipe.model)
    return begun.train().requires_grad_(True)


def begun_calibration(recipe: Recipe) -> Calibration | None:
    """Return the calibration of the recipe's begin_with, None where there is none."""
    return None if recipe.begin_with == Path() else read_motion_header(recipe.begin_with).calibration


def make_windows(recipe: Recipe, corpus: Corpus, run: TrainingRun) -> Dataset[MotionBatch]:
    """Make the dataset of batches that the recipe asks for."""
    given = corpus.training, corpus.normalisation, recipe, run.rows, run.rank
    if not recipe.lookahead:
        return WindowDataset(*given)
    assert isinstance(corpus.encoder, WhisperEncoder)
    return SlidingWindowDataset(*given, encoder=corpus.encoder)


def make_optimiser(objective: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Create AdamW over all parameters of the loss's denoiser."""
    return torch.optim.AdamW(
        objective.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )


def validate(recipe: Recipe, corpus: Corpus, model: DiffusionMotionModel) -> tuple[dict[str, float], dict[str, Figure]]:
    """Save the EMA model; return its metrics on the validation split and a plot of sampled motion."""
    model.save(recipe.run / MODEL_FILE)
    clips = corpus.validation[: recipe.validate_takes]
    if not clips:
        return {}, {}
    sampled = sample_clips(model, clips, Speech(corpus.encoder, model).silence)
    return motion_metrics(sampled, corpus.mouth[0]), {"motion": plot_motion(sampled[0], corpus.mouth[0], model)}


def save_calibrated(recipe: Recipe, corpus: Corpus, model: DiffusionMotionModel) -> None:
    """Save the EMA model of the last step with its calibration."""
    silence = Speech(corpus.encoder, model).silence
    calibration = calibrate(model, calibration_clips(recipe, corpus), corpus.mouth[0], silence)
    replace(model, calibration=calibration).save(recipe.run / MODEL_FILE)


def calibration_clips(recipe: Recipe, corpus: Corpus) -> list[Clip]:
    """List the training clips whose films the recipe's calibration_films names."""
    films = re.compile(recipe.calibration_films)
    return [clip for clip in corpus.training if films.search(clip.film)]


def card(recipe: Recipe, corpus: Corpus) -> dict[str, str]:
    """Write the model card: program, data, recipe."""
    people, data = len({clip.speaker for clip in corpus.training}), corpus.fingerprint
    return {
        "made by": f"kdtalker {__version__}, python -m train.motion",
        "data": f"{data['takes']} takes, {data['frames'] / 25 / 60:.1f} minutes, {people} people",
        "recipe": json.dumps(recipe.fixed),
    }


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Train the motion model on shards.")
    parser.add_argument("config", type=Path, help="TOML file: preset, shards, run, and whatever else is to differ")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes, memory")
    options = parser.parse_args()
    recipe = read_config(options.config, PRESETS)
    with main_process_first(recipe):
        corpus = Corpus.load(recipe)
    if options.dry_run:
        print(plan(recipe, corpus))
    else:
        train(recipe, corpus)


if __name__ == "__main__":
    main()
