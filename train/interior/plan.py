"""Describe a training of the mouth's inside before it runs (--dry-run)."""

from __future__ import annotations

from pathlib import Path

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.data.cache import record_file
from train.data.films import Film
from train.harness.plan import difference_line, network_lines
from train.interior.recipe import PRESETS, InteriorRecipe


def plan(recipe: InteriorRecipe, films: list[Film], folder: Path) -> str:
    """Format data, sizes and differences from the preset, as lines to print. folder: of the mouths."""
    counts = {split: sum(film.split == split for film in films) for split in ("train", "val")}
    files = [record_file(film, folder) for film in films]
    made = sum(file.exists() for file in files)
    useless = sum(file.with_suffix(".txt").exists() for file in files)
    return "\n".join(
        [
            f"films         {counts['train']} to learn from, {counts['val']} held out",
            f"mouths        of {made} films lie in '{folder}', {useless} are of no use, "
            f"{len(films) - made - useless} are still to be looked at",
            *network_lines("interior", MouthInterior(recipe.code_size, recipe.style_size, recipe.width)),
            f"steps         {recipe.steps}, {recipe.batch} frames each",
            difference_line(recipe, PRESETS),
        ]
    )
