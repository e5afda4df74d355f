"""What a training is going to do, told before it does it."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from kdtalker.audio import FRAME_RATE_HZ
from kdtalker.denoiser import Denoiser
from kdtalker.motion import MOTION_WIDTH
from train.dataset import Corpus, Take
from train.objective import Objective
from train.recipe import PRESETS, Recipe
from train.windows import Batch

MB = 2**20
COPIES = {"weights": 1, "gradients": 1, "optimiser (two moments)": 2, "averaged weights": 1}


def plan(recipe: Recipe, corpus: Corpus) -> str:
    """Data, sizes, memory and what differs from the presets, as lines to print."""
    denoiser = Denoiser(recipe.model)
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    kept = saved_bytes(Objective(denoiser, recipe, corpus), recipe)
    state = sum(COPIES.values()) * 4 * parameters
    windows = sum(len(take.motion) for take in corpus.seen) / recipe.model.window
    lines = [
        f"learn from    {_told(corpus.seen)}",
        f"held out      {_told(corpus.unseen)}" + ("" if corpus.unseen else ": nothing will be validated"),
        f"model         {parameters / 1e6:.2f} M parameters, {2 * parameters / MB:.1f} MB when exported",
        *(f"  {name:14}{sum(weight.numel() for weight in part.parameters()) / 1e6:.2f} M"
          for name, part in denoiser.named_children()),
        f"steps         {recipe.steps}, {recipe.batch} windows of {recipe.model.window} frames each: "
        f"every frame about {recipe.steps * recipe.batch / windows:.0f} times",
        f"memory        {(state + kept) / MB:.0f} MB: "
        + ", ".join(f"{name} {4 * copies * parameters / MB:.0f}" for name, copies in COPIES.items())
        + f", kept for the backward pass {kept / MB:.0f}",
        f"state on disk {(4 * 4 * parameters) / MB:.0f} MB, written every {recipe.save_every} steps to '{recipe.run}'",
        _differences(recipe),
    ]  # fmt: skip
    return "\n".join(lines)


def saved_bytes(objective: Objective, recipe: Recipe) -> int:
    """What one forward pass of a full batch keeps for the backward pass in float32, by a pass without any numbers."""
    shapes = {"x": (MOTION_WIDTH,), "known": (), "features": (recipe.model.audio_input,)}
    shape = (recipe.batch, recipe.model.window)
    numbers = [torch.empty(*shape, *shapes[field.name], device="meta") for field in fields(Batch)[:3]]
    numbers[1] = numbers[1].bool()
    numbers += [torch.empty(recipe.batch, width, device="meta") for width in (MOTION_WIDTH - 7, MOTION_WIDTH)]
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective.to("meta")(*numbers)
    own = sum(weight.nbytes for weight in objective.parameters())
    return max(0, sum(sizes.values()) - own)


def _told(takes: list[Take]) -> str:
    minutes = sum(len(take.motion) for take in takes) / FRAME_RATE_HZ / 60
    return f"{len(takes)} takes, {minutes:.1f} minutes, {len({take.speaker for take in takes})} people"


def _differences(recipe: Recipe) -> str:
    """What the recipe has that is not the preset's which is nearest to it."""
    by_preset = {name: differences(recipe, preset) for name, preset in PRESETS.items()}
    nearest = min(by_preset, key=lambda name: len(by_preset[name]))
    return f"like '{nearest}' but for {', '.join(by_preset[nearest]) or 'nothing'}"


def differences(recipe: Recipe, preset: Recipe) -> list[str]:
    """`name = value` of what one has and the other has not, the model's choices among them."""
    told = [
        f"{place}{field.name} = {getattr(ours, field.name)!r}"
        for place, ours, theirs in (("", recipe, preset), ("model.", recipe.model, preset.model))
        for field in fields(ours)
        if getattr(ours, field.name) != getattr(theirs, field.name)
    ]
    return [line for line in told if line.partition(" ")[0] not in ("shards", "run", "model")]
