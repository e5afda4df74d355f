"""What a training of the motion model is going to do, told before it does it."""

from __future__ import annotations

from dataclasses import fields

import torch

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.denoiser import Denoiser
from train.harness.plan import difference_line, kept_bytes, memory_lines, network_lines, size_of
from train.motion.dataset import Clip, Corpus
from train.motion.loss import Objective
from train.motion.recipe import PRESETS, Recipe
from train.motion.windows import Batch


def plan(recipe: Recipe, corpus: Corpus) -> str:
    """Data, sizes, memory and what differs from the presets, as lines to print."""
    denoiser = Denoiser(recipe.model)
    windows = sum(len(take.motion) for take in corpus.training) / recipe.model.window
    objective, size = Objective(denoiser, recipe, corpus), size_of(denoiser)
    kept = kept_bytes(objective, lambda: _pass(objective, recipe))
    lines = [
        f"learn from    {_told(corpus.training)}",
        f"held out      {_told(corpus.validation)}" + ("" if corpus.validation else ": nothing will be validated"),
        *network_lines("model", denoiser),
        f"steps         {recipe.steps}, {recipe.batch} windows of {recipe.model.window} frames each: "
        f"every frame about {recipe.steps * recipe.batch / windows:.0f} times",
        *memory_lines(recipe, size, size, kept),
        difference_line(recipe, PRESETS),
    ]  # fmt: skip
    return "\n".join(lines)


def _pass(objective: Objective, recipe: Recipe) -> None:
    """Forward over a full batch without any numbers."""
    shapes = {"x": (MOTION_WIDTH,), "known": (), "features": (recipe.model.audio_input,)}
    shape = (recipe.batch, recipe.model.window)
    numbers = [torch.empty(*shape, *shapes[field.name], device="meta") for field in fields(Batch)[:3]]
    numbers[1] = numbers[1].bool()
    numbers += [torch.empty(recipe.batch, width, device="meta") for width in (MOTION_WIDTH - 7, MOTION_WIDTH)]
    objective(*numbers)


def _told(takes: list[Clip]) -> str:
    minutes = sum(len(take.motion) for take in takes) / FRAME_RATE_HZ / 60
    return f"{len(takes)} takes, {minutes:.1f} minutes, {len({take.speaker for take in takes})} people"
