"""What a training of a painter is going to do, told before it does it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from kdtalker.renderers.mesh.unet import VIEW_CHANNELS, PartUNet
from train.data.films import Film
from train.harness.plan import difference_line, kept_bytes, memory_lines, network_lines, size_of
from train.painters.loss import Critic
from train.painters.pairs import pairs_file
from train.painters.recipe import PARTS, PRESETS, PainterRecipe


def plan(recipe: PainterRecipe, films: list[Film], folder: Path) -> str:
    """Data, sizes, memory and what differs from the presets, as lines to print; folder: of the pairs."""
    side_px = PARTS[recipe.part][0].side_px
    painter, critic = PartUNet(side_px, recipe.widths), Critic()
    sizes = size_of(painter) + size_of(critic), size_of(painter)
    networks = nn.ModuleList([painter, critic])
    views = torch.empty(recipe.batch, VIEW_CHANNELS, side_px, side_px, device="meta")
    kept = kept_bytes(networks, lambda: (painter(views, views), critic(views.repeat(2, 1, 1, 1)), critic(views)))
    files = [pairs_file(film, folder) for film in films]
    made = [file.stat().st_size for file in files if file.exists()]
    useless = sum(file.with_suffix(".txt").exists() for file in files)
    return "\n".join(
        [
            f"learn from    {_told(films, 'train')}",
            f"held out      {_told(films, 'val')}",
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


def _told(films: list[Film], split: str) -> str:
    chosen = [film for film in films if film.split == split]
    return f"{len(chosen)} films, {len({film.speaker for film in chosen})} people"
