"""How much of the time of a training goes into its forward and backward passes: `python -m train.bench_motion CONFIG`.

The same batches are worked on twice: the passes alone, and by the whole `train.motion`, whose start and end are taken
off by a shorter run. On one thread, the best of several rounds in turn; the processor's time, which other programs on
the machine disturb least, and the time on the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from kdtalker.core.arrays import Array
from kdtalker.diffusion.denoiser import Denoiser
from train.harness.command import command
from train.harness.config import read_config
from train.motion.dataset import Corpus
from train.motion.loss import Objective
from train.motion.recipe import PRESETS, Recipe
from train.motion.trainer import train
from train.motion.windows import Batch, Windows

SHORT, LONG, ROUNDS = 4, 24, 3  # the first two in steps
CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}


def spent_s(work: Callable[[], object]) -> Array:
    """On each of CLOCKS."""
    began = [now() for now in CLOCKS.values()]
    work()
    return np.array([now() for now in CLOCKS.values()]) - began


def bare_s(recipe: Recipe, corpus: Corpus) -> Array:
    """The forward and backward passes of LONG - SHORT steps."""
    objective = Objective(Denoiser(recipe.model), recipe, corpus)
    windows = Windows(corpus.training, corpus.normalisation, recipe, recipe.batch, 0)
    batches = [windows[step] for step in range(1, LONG + 1)]

    def passes(chosen: list[Batch]) -> None:
        for batch in chosen:
            objective(*(getattr(batch, field.name) for field in fields(Batch))).backward()

    passes(batches[:SHORT])  # warm
    return spent_s(lambda: passes(batches[SHORT:]))


def whole_s(recipe: Recipe, corpus: Corpus) -> Array:
    """(2, clocks): whole trainings of SHORT and of LONG steps; nothing is saved between."""
    spent = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as run:
            shown = {"validate_every": LONG + 1, "save_every": LONG + 1, "validate_takes": 0}
            some = replace(recipe, run=Path(run), steps=steps, device="cpu", workers=0, **shown)
            spent.append(spent_s(lambda some=some: train(some, corpus)))  # type: ignore[misc]
    return np.stack(spent)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="How much of a training's time goes into its passes.")
    parser.add_argument("config", type=Path)
    recipe = read_config(parser.parse_args().config, PRESETS)
    torch.set_num_threads(1)
    corpus = Corpus.load(recipe)
    rounds = [np.vstack([bare_s(recipe, corpus), whole_s(recipe, corpus)]) for _ in range(ROUNDS)]
    bare, short, long = np.min(rounds, axis=0)
    for name, alone, all_of_it in zip(CLOCKS, bare, long - short, strict=True):
        told = f"{alone:.1f} s of {all_of_it:.1f} s are forward and backward passes: {100 * alone / all_of_it:.0f} %"
        print(f"{name}: {LONG - SHORT} steps, {told}")


if __name__ == "__main__":
    main()
