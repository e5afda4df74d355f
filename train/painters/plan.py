"""Describe a training of a painter before it runs (--dry-run)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from kdtalker.renderers.mesh.eyes.parts import EYES
from kdtalker.renderers.mesh.eyes.unet import VIEW_CHANNELS, PartUNet
from train.data.cache import record_file
from train.data.films import Film
from train.harness.plan import activation_bytes, count_parameters, difference_line, memory_lines, network_lines
from train.painters.loss import PatchDiscriminator
from train.painters.recipe import PRESETS, PainterRecipe


def plan(recipe: PainterRecipe, films: list[Film], folder: Path) -> str:
    """Format data, sizes, memory and differences from the presets, as lines to print. folder: of the pairs."""
    side_px = EYES[0].side_px
    painter, critic = PartUNet(side_px, recipe.widths), PatchDiscriminator()
    sizes = count_parameters(painter) + count_parameters(critic), count_parameters(painter)
    networks = nn.ModuleList([painter, critic])
    views = torch.empty(recipe.batch, VIEW_CHANNELS, side_px, side_px, device="meta")
    kept = activation_bytes(networks, lambda: (painter(views, views), critic(views.repeat(2, 1, 1, 1)), critic(views)))
    files = [record_file(film, folder) for film in films]
    made = [file.stat().st_size for file in files if file.exists()]
    useless = sum(file.with_suffix(".txt").exists() for file in files)
    return "\n".join(
        [
            f"learn from    {_describe_split(films, 'train')}",
            f"held out      {_describe_split(films, 'val')}",
            f"pairs         of {len(made)} films lie in '{folder}', {useless} are of no use, "
            f"{len(films) - len(made) - useless} are still to be looked at",
            *network_lines("painter", painter),
            *network_lines("critic", critic),
            f"steps         {recipe.steps}, {recipe.batch} pairs each; the critic from step "
            f"{round(recipe.critic_from * recipe.steps)} on",
            *memory_lines(recipe, *sizes, kept, sum(made)),
            difference_line(recipe, PRESETS),
        ]
    )


def _describe_split(films: list[Film], split: str) -> str:
    chosen = [film for film in films if film.split == split]
    return f"{len(chosen)} films, {len({film.speaker for film in chosen})} people"
