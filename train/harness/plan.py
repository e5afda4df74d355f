"""Describe a training before it runs: sizes, memory, differences between settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from train.harness.training import CheckedConfig, Training

MB = 2**20


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(weight.numel() for weight in network.parameters())


def network_lines(name: str, network: nn.Module) -> list[str]:
    """Describe the size of a network and of its parts, as lines to print."""
    parts = (
        f"  {part:14}{count_parameters(inner) / 1e6:.2f} M"
        for part, inner in network.named_children()
        if count_parameters(inner)
    )
    size = count_parameters(network)
    return [f"{name:14}{size / 1e6:.2f} M parameters, {2 * size / MB:.1f} MB as float16", *parts]


def memory_lines(training: Training, learned: int, averaged: int, kept: int, data: int = 0) -> list[str]:
    """Estimate memory and disk, as lines to print. learned, averaged: parameter counts of the trained networks and of
    their moving averages; kept: bytes of activations; data: bytes of data held in memory."""
    by_use = {
        "weights": 4 * learned,
        "gradients": 4 * learned,
        "optimiser (two moments)": 8 * learned,
        "averaged weights": 4 * averaged,
        "kept for the backward pass": kept,
    } | ({"data": data} if data else {})
    uses = ", ".join(f"{use} {size / MB:.0f}" for use, size in by_use.items())
    return [
        f"memory        {sum(by_use.values()) / MB:.0f} MB in float32: {uses}",
        f"state on disk {4 * (3 * learned + averaged) / MB:.0f} MB, written every {training.save_every} steps to "
        f"'{training.run}'",
    ]


def activation_bytes(network: nn.Module, forward: Callable[[], object]) -> int:
    """Measure the bytes of activations that a forward pass saves for the backward pass in float32.

    Runs on the meta device, where tensors have no values; `network` stays there."""
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def record(tensor: Tensor) -> Tensor:
        sizes[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    network.to("meta")
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        forward()
    return max(0, sum(sizes.values()) - sum(weight.nbytes for weight in network.parameters()))


def difference_line(choices: CheckedConfig, presets: Mapping[str, CheckedConfig]) -> str:
    """Describe how a recipe differs from its nearest preset."""
    by_preset = {name: differences(choices, preset) for name, preset in presets.items()}
    nearest = min(by_preset, key=lambda name: len(by_preset[name]))
    return f"like '{nearest}' but for {', '.join(by_preset[nearest]) or 'nothing'}"


def differences(choices: CheckedConfig, preset: CheckedConfig) -> list[str]:
    """List `name = value` of every field that differs from a preset's, except paths of data and of the run."""
    ours, theirs = _flat(asdict(choices)), _flat(asdict(preset))
    places = ("shards", "films", "tables", "run")
    return [f"{name} = {value!r}" for name, value in ours.items() if value != theirs[name] and name not in places]


def _flat(values: Mapping[str, object], place: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{place}{name}.") if isinstance(value, Mapping) else {place + name: value}
    return flat
