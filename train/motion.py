"""Train the motion model: `python -m train.motion CONFIG [--dry-run]`. Run it again and it goes on where it stopped.

CONFIG is a TOML file over one of the presets of train/recipe.py. `accelerate launch -m train.motion CONFIG` runs it on
several devices or machines. What is random about a step follows from the seed and the step's number, so a run that was
stopped, by whatever, ends in the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from kdtalker import __version__
from kdtalker.denoiser import Denoiser
from kdtalker.diffusion import MotionModel
from kdtalker.errors import InputError, KDTalkerError
from kdtalker.pipeline import Speech
from train.config import read_config
from train.dataset import Corpus
from train.objective import Objective
from train.plan import plan
from train.recipe import PRECISIONS, PRESETS, Recipe
from train.run_state import LOG_FILE, MODEL_FILE, State, fixed_choices, load_state, save_state
from train.shards import write_whole
from train.validation import draw_curves, draw_motion, figures_of, sample, save_figure
from train.windows import Batch, Windows


def train(recipe: Recipe, corpus: Corpus) -> None:
    """The whole training in one loop. Raises InputError where the run was begun otherwise, OutputError where there is
    no room for its state."""
    accelerator = start_accelerator(recipe)
    rank, processes = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(recipe.seed)
    denoiser = Denoiser(recipe.model)
    averaged = copy.deepcopy(denoiser).eval().requires_grad_(False).to(accelerator.device)
    model = MotionModel(averaged, corpus.normalisation, recipe.space, card(recipe, corpus))
    objective = Objective(denoiser, recipe, corpus)
    trained, optimiser = accelerator.prepare(objective, make_optimiser(objective, recipe))
    state = load_state(recipe, corpus.told) or {"step": 0, "losses": 0.0, "log": []}
    if state["step"]:
        denoiser.load_state_dict(state["denoiser"])
        averaged.load_state_dict(state["averaged"])
        optimiser.optimizer.load_state_dict(state["optimiser"])
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
    start_tracking(accelerator, recipe, state["step"])
    steps = range(state["step"] + 1, recipe.steps + 1)
    windows = Windows(corpus.seen, corpus.normalisation, recipe, max(1, recipe.batch // processes), rank)
    source = DataLoader(windows, batch_size=None, sampler=steps, num_workers=recipe.workers)
    bar = tqdm(zip(steps, source, strict=True), initial=steps.start - 1, total=recipe.steps, disable=rank > 0 or None)
    for step, batch in bar:
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, step, rank)).generate_state(1)[0]))
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(step, recipe)
        loss = trained(*(getattr(batch.to(accelerator.device), field.name) for field in fields(Batch)))
        optimiser.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained.parameters(), recipe.clip)
        optimiser.step()
        average(averaged, denoiser, min(recipe.ema, step / (step + 10)))
        state["step"], state["losses"] = step, state["losses"] + loss.detach().double()
        if step % recipe.log_every == 0:
            accelerator.log({"loss": loss.item(), "learning rate": optimiser.param_groups[0]["lr"]}, step)
        is_validated = step % recipe.validate_every == 0 or step == recipe.steps
        if accelerator.is_main_process and is_validated:
            validate(accelerator, recipe, corpus, model, state)
        if accelerator.is_main_process and (is_validated or step % recipe.save_every == 0):
            save_state(recipe.run, state | {
                "denoiser": denoiser.state_dict(), "averaged": averaged.state_dict(),
                "optimiser": optimiser.optimizer.state_dict(), "recipe": fixed_choices(recipe), "data": corpus.told,
                "scaler": accelerator.scaler and accelerator.scaler.state_dict(),
            })  # fmt: skip
        if is_validated:
            accelerator.wait_for_everyone()
    accelerator.end_training()


def start_accelerator(recipe: Recipe) -> Any:
    """Raises InputError for a tracker that is not installed or a precision that the device cannot do."""
    from importlib.util import find_spec

    from accelerate import Accelerator

    if recipe.tracker == "wandb" and find_spec("wandb") is None:
        raise InputError("The recipe's tracker 'wandb' is not installed: pip install wandb, or take 'tensorboard'.")
    recipe.run.mkdir(parents=True, exist_ok=True)
    try:
        return Accelerator(
            cpu=recipe.device == "cpu",
            mixed_precision=PRECISIONS[recipe.precision],
            log_with=None if recipe.tracker == "none" else recipe.tracker,
            project_dir=recipe.run,
        )
    except ValueError as error:
        raise InputError(f"The precision '{recipe.precision}' cannot be had here: {error}.") from None


def start_tracking(accelerator: Any, recipe: Recipe, done: int) -> None:
    """What a run that stopped had told after its last state is forgotten."""
    purge = {"tensorboard": {"purge_step": done + 1}, "wandb": {"resume": "allow"}}
    if recipe.tracker != "none":
        named = {recipe.tracker: purge[recipe.tracker]}
        accelerator.init_trackers("log", init_kwargs=named)


def make_optimiser(objective: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        objective.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )


def rate_at(step: int, recipe: Recipe) -> float:
    """Of the peak: a linear warm-up under half a cosine."""
    warm = min(1.0, step / recipe.warm_up_steps) if recipe.warm_up_steps else 1.0
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))


@torch.no_grad()
def average(averaged: nn.Module, denoiser: nn.Module, decay: float) -> None:
    for kept, new in zip(averaged.parameters(), denoiser.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def validate(accelerator: Any, recipe: Recipe, corpus: Corpus, model: MotionModel, state: State) -> None:
    """A row of figures, the model as it is now, curves and a picture of what it samples."""
    run, last = recipe.run, state["log"][-1]["step"] if state["log"] else 0
    row = {"step": state["step"], "loss": float(state["losses"]) / (state["step"] - last)}
    pictures = {}
    if takes := corpus.unseen[: recipe.validate_takes]:
        sampled = sample(model, takes, Speech(corpus.encoder, model).silence)
        row |= figures_of(sampled, corpus.mouth[0])
        pictures["motion"] = save_figure(draw_motion(sampled[0], corpus.mouth[0], model), run / "motion.png")
    state["losses"], state["log"] = 0.0, [*state["log"], row]
    lines = "".join(json.dumps(row) + "\n" for row in state["log"])
    write_whole(run / LOG_FILE, lambda file: file.write(lines.encode()))
    model.save(run / MODEL_FILE)
    pictures["curves"] = save_figure(draw_curves(state["log"]), run / "curves.png")
    accelerator.log(row, state["step"])
    for tracker in accelerator.trackers:
        tracker.log_images({name: picture[None] for name, picture in pictures.items()}, step=state["step"],
                           **({"dataformats": "NHWC"} if recipe.tracker == "tensorboard" else {}))  # fmt: skip


def card(recipe: Recipe, corpus: Corpus) -> dict[str, str]:
    """What a model tells of itself to people."""
    people = len({take.speaker for take in corpus.seen})
    return {
        "made by": f"kdtalker {__version__}, python -m train.motion",
        "data": f"{corpus.told['takes']} takes, {corpus.told['frames'] / 25 / 60:.1f} minutes, {people} people",
        "recipe": json.dumps(fixed_choices(recipe)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the motion model on shards.")
    parser.add_argument("config", type=Path, help="TOML file: preset, shards, run, and whatever else is to differ")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes, memory")
    options = parser.parse_args()
    try:
        recipe = read_config(options.config, PRESETS)
        corpus = Corpus.load(recipe)
        if options.dry_run:
            print(plan(recipe, corpus))
        else:
            train(recipe, corpus)
    except KDTalkerError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
