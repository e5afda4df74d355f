"""Describe a training of the motion model before it runs (--dry-run)."""

from __future__ import annotations

from dataclasses import fields

import torch

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.denoiser import Denoiser
from train.harness.plan import activation_bytes, count_parameters, difference_line, memory_lines, network_lines
from train.motion.dataset import Clip, Corpus
from train.motion.loss import DenoisingLoss
from train.motion.recipe import PRESETS, Recipe
from train.motion.windows import MotionBatch


def plan(recipe: Recipe, corpus: Corpus) -> str:
    """Format data, sizes, memory and differences from the presets, as lines to print."""
    denoiser = Denoiser(recipe.model)
    windows = sum(len(clip.motion) for clip in corpus.training) / recipe.model.window
    objective, size = DenoisingLoss(denoiser, recipe, corpus), count_parameters(denoiser)
    kept = activation_bytes(objective, lambda: _pass(objective, recipe))
    lines = [
        f"learn from    {_describe_clips(corpus.training)}",
        f"held out      {_describe_clips(corpus.validation)}"
        + ("" if corpus.validation else ": nothing will be validated"),
        *network_lines("model", denoiser),
        f"steps         {recipe.steps}, {recipe.batch} windows of {recipe.model.window} frames each: "
        f"every frame about {recipe.steps * recipe.batch / windows:.0f} times",
        *memory_lines(recipe, size, size, kept),
        difference_line(recipe, PRESETS),
    ]  # fmt: skip
    return "\n".join(lines)


def _pass(objective: DenoisingLoss, recipe: Recipe) -> None:
    """Run forward over a full batch on the meta device."""
    shapes = {"x": (MOTION_WIDTH,), "known": (), "features": (recipe.model.audio_input,)}
    shape = (recipe.batch, recipe.model.window)
    numbers = [torch.empty(*shape, *shapes[field.name], device="meta") for field in fields(MotionBatch)[:3]]
    numbers[1] = numbers[1].bool()
    numbers += [torch.empty(recipe.batch, width, device="meta") for width in (MOTION_WIDTH - 7, MOTION_WIDTH)]
    objective(*numbers)


def _describe_clips(clips: list[Clip]) -> str:
    minutes = sum(len(clip.motion) for clip in clips) / FRAME_RATE_HZ / 60
    return f"{len(clips)} takes, {minutes:.1f} minutes, {len({clip.speaker for clip in clips})} people"
