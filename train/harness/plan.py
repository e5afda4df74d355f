"""Describe a training before it runs: sizes, memory, differences between settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from train.harness.training import Choices, Training

MB = 2**20


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
