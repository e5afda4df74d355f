"""Benchmark the share of a training that its forward and backward passes take: `python -m train.bench training CONFIG`.

The same batches run twice: the passes alone, and in the whole of `train.motion`, from which the time of a shorter run
is subtracted. One thread, several rounds in turn; processor time, which other programs disturb least, and wall-clock
time."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdtalker.diffusion.denoiser import Denoiser
from train.bench.record import ROOT, BenchRecord
from train.harness.config import read_config
from train.harness.provenance import describe_commit
from train.motion.dataset import Corpus
from train.motion.loss import DenoisingLoss
from train.motion.recipe import PRESETS, Recipe
from train.motion.trainer import train
from train.motion.windows import MotionBatch, WindowDataset

SHORT, LONG, ROUNDS = 4, 24, 3  # steps of the short and of the long run; rounds of measuring
CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}
Seconds = NDArray[np.float64]


def time_on_clocks(work: Callable[[], object]) -> Seconds:
    """Measure the time (clocks,) of a function on each of CLOCKS in s."""
    began = [now() for now in CLOCKS.values()]
    work()
    return np.array([now() for now in CLOCKS.values()]) - began


def time_passes(recipe: Recipe, corpus: Corpus) -> Seconds:
    """Measure the forward and backward passes of LONG - SHORT steps."""
    objective = DenoisingLoss(Denoiser(recipe.model), recipe, corpus)
    windows = WindowDataset(corpus.training, corpus.normalisation, recipe, recipe.batch, 0)
    batches = [windows[step] for step in range(1, LONG + 1)]

    def passes(chosen: list[MotionBatch]) -> None:
        for batch in chosen:
            objective(*(getattr(batch, field.name) for field in fields(MotionBatch))).backward()

    passes(batches[:SHORT])  # warm
    return time_on_clocks(lambda: passes(batches[SHORT:]))


def time_trainings(recipe: Recipe, corpus: Corpus) -> Seconds:
    """Measure whole trainings of SHORT and of LONG steps (2, clocks), without validation and saving."""
    spent = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as run:
            short = replace(recipe, run=Path(run), steps=steps, device="cpu", workers=0)
            short = replace(short, validate_every=LONG + 1, save_every=LONG + 1, validate_takes=0)
            spent.append(time_on_clocks(lambda short=short: train(short, corpus)))  # type: ignore[misc]
    return np.stack(spent)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.bench training", description="How much of a training's time goes into its passes."
    )
    parser.add_argument("config", type=Path)
    recipe = read_config(parser.parse_args(arguments).config, PRESETS)
    torch.set_num_threads(1)
    corpus = Corpus.load(recipe)
    record = BenchRecord(f"training-{describe_commit(ROOT)}", "training")
    time_trainings(recipe, corpus)  # imports, and whatever else is done once
    for _ in range(ROUNDS):
        passes, (short, long) = time_passes(recipe, corpus), time_trainings(recipe, corpus)
        shares = 100 * passes / (long - short)
        raw = {"passes_s": passes.tolist(), "short_s": short.tolist(), "long_s": long.tolist()}
        record.add({f"passes, % of {name} time": share for name, share in zip(CLOCKS, shares, strict=True)}, raw)
    print(record.table())
    print(record.save())
