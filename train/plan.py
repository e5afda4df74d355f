"""What a training of the motion model is going to do, told before it does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields

import torch
from torch import Tensor, nn

from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.denoiser import Denoiser
from train.dataset import Corpus, Take
from train.objective import Objective
from train.recipe import PRESETS, Recipe
from train.training import Choices, Training
from train.windows import Batch

MB = 2**20


def plan(recipe: Recipe, corpus: Corpus) -> str:
    """Data, sizes, memory and what differs from the presets, as lines to print."""
    denoiser = Denoiser(recipe.model)
    windows = sum(len(take.motion) for take in corpus.seen) / recipe.model.window
    objective, size = Objective(denoiser, recipe, corpus), size_of(denoiser)
    kept = kept_bytes(objective, lambda: _pass(objective, recipe))
    lines = [
        f"learn from    {_told(corpus.seen)}",
        f"held out      {_told(corpus.unseen)}" + ("" if corpus.unseen else ": nothing will be validated"),
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


def _told(takes: list[Take]) -> str:
    minutes = sum(len(take.motion) for take in takes) / FRAME_RATE_HZ / 60
    return f"{len(takes)} takes, {minutes:.1f} minutes, {len({take.speaker for take in takes})} people"


def size_of(network: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(weight.numel() for weight in network.parameters())


def network_lines(name: str, network: nn.Module) -> list[str]:
    """The size of a network and of its parts."""
    parts = (f"  {part:14}{size_of(inner) / 1e6:.2f} M" for part, inner in network.named_children() if size_of(inner))
    size = size_of(network)
    return [f"{name:14}{size / 1e6:.2f} M parameters, {2 * size / MB:.1f} MB as float16", *parts]


def memory_lines(training: Training, learned: int, averaged: int, kept: int, data: int = 0) -> list[str]:
    """learned, averaged: numbers; kept: bytes between the passes; data: bytes that are always there."""
    by_use = {
        "weights": 4 * learned,
        "gradients": 4 * learned,
        "optimiser (two moments)": 8 * learned,
        "averaged weights": 4 * averaged,
        "kept for the backward pass": kept,
    } | ({"data": data} if data else {})
    told = ", ".join(f"{use} {size / MB:.0f}" for use, size in by_use.items())
    return [
        f"memory        {sum(by_use.values()) / MB:.0f} MB in float32: {told}",
        f"state on disk {4 * (3 * learned + averaged) / MB:.0f} MB, written every {training.save_every} steps to "
        f"'{training.run}'",
    ]


def kept_bytes(network: nn.Module, forward: Callable[[], object]) -> int:
    """What a forward pass keeps for the backward pass in float32, by a pass without any numbers: `network` is moved to
    the meta device for it."""
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        sizes[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    network.to("meta")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return max(0, sum(sizes.values()) - sum(weight.nbytes for weight in network.parameters()))


def difference_line(choices: Choices, presets: Mapping[str, Choices]) -> str:
    """What the recipe has that is not the preset's which is nearest to it."""
    by_preset = {name: differences(choices, preset) for name, preset in presets.items()}
    nearest = min(by_preset, key=lambda name: len(by_preset[name]))
    return f"like '{nearest}' but for {', '.join(by_preset[nearest]) or 'nothing'}"


def differences(choices: Choices, preset: Choices) -> list[str]:
    """`name = value` of what one has and the other has not, but for where the data lie."""
    ours, theirs = _flat(asdict(choices)), _flat(asdict(preset))
    places = ("shards", "films", "tables", "run")
    return [f"{name} = {value!r}" for name, value in ours.items() if value != theirs[name] and name not in places]


def _flat(values: Mapping[str, object], place: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{place}{name}.") if isinstance(value, Mapping) else {place + name: value}
    return flat
