"""How much of the time of a training goes into its forward and backward passes: `python -m train.bench_motion CONFIG`.

The same batches are worked on twice: the passes alone, and by the whole `train.motion`, whose start and end are taken
off by a shorter run. Processor time of one thread is compared, which other programs on the machine do not disturb.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch

from kdtalker.denoiser import Denoiser
from train.config import read_config
from train.dataset import Corpus
from train.motion import train
from train.objective import Objective
from train.recipe import PRESETS, Recipe
from train.windows import Batch, Windows

SHORT, LONG = 4, 24  # steps


def processor_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def bare_s(recipe: Recipe, corpus: Corpus) -> float:
    """A step's forward and backward pass."""
    objective = Objective(Denoiser(recipe.model), recipe, corpus)
    windows = Windows(corpus.seen, corpus.normalisation, recipe, recipe.batch, 0)
    batches = [windows[step] for step in range(1, LONG + 1)]

    def passes(chosen: list[Batch]) -> None:
        for batch in chosen:
            objective(*(getattr(batch, field.name) for field in fields(Batch))).backward()

    passes(batches[:SHORT])  # warm
    return processor_s(lambda: passes(batches[SHORT:])) / (LONG - SHORT)


def whole_s(recipe: Recipe, corpus: Corpus) -> float:
    """A step of the whole training; nothing is saved between."""
    spent = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as run:
            shown = {"validate_every": LONG + 1, "save_every": LONG + 1, "validate_takes": 0}
            some = replace(recipe, run=Path(run), steps=steps, device="cpu", workers=0, **shown)
            spent.append(processor_s(lambda some=some: train(some, corpus)))  # type: ignore[misc]
    return (spent[1] - spent[0]) / (LONG - SHORT)


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of a training's time goes into its passes.")
    parser.add_argument("config", type=Path)
    recipe = read_config(parser.parse_args().config, PRESETS)
    torch.set_num_threads(1)
    corpus = Corpus.load(recipe)
    bare, whole = bare_s(recipe, corpus), whole_s(recipe, corpus)
    print(f"forward and backward {1000 * bare:.0f} ms a step, whole {1000 * whole:.0f} ms: {100 * bare / whole:.0f} %")


if __name__ == "__main__":
    main()
