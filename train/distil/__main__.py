"""Distil the speech models into a causal student: `python -m train.distil COMMAND`, one of cache, probe, ceiling,
train, run, table, measure, figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdtalker.core.files import write_atomically
from train.distil import cache
from train.distil.ceiling import measure_teacher
from train.distil.measure import live, plot
from train.distil.probe import PhoneProbe, fit_probe
from train.distil.recipe import PRESETS, DistilRecipe
from train.distil.table import Manifest, format_table, run_arms
from train.distil.trainer import DistilCorpus, train
from train.harness.command import command
from train.harness.config import read_config


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Distil the speech models into a causal student.")
    commands = parser.add_subparsers(required=True)
    for name, text, module in (
        ("cache", "write the teacher's outputs for shards and sounds", cache),
        ("measure", "measure teacher or students as live sessions run them", live),
        ("figure", "compare what was measured: a table, a figure", plot),
    ):
        one = commands.add_parser(name, help=text)
        module.add_arguments(one)
        one.set_defaults(run=module.run)
    probe = commands.add_parser("probe", help="train the phone probe on cached features")
    probe.add_argument("cache", type=Path, help="folder that `cache` wrote")
    probe.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    probe.add_argument("--steps", type=int, default=3000)
    probe.set_defaults(run=_probe)
    ceiling = commands.add_parser("ceiling", help="measure the teacher as students are measured")
    ceiling.add_argument("cache", type=Path, help="folder that `cache` wrote; with --lookahead for the second ceiling")
    ceiling.add_argument("--probe", type=Path, required=True, help="file that `probe` wrote")
    ceiling.set_defaults(run=_ceiling)
    trains = commands.add_parser("train", help="train one arm")
    trains.add_argument("config", type=Path, help="TOML file: method, cache, probe, run, and whatever is to differ")
    trains.set_defaults(run=_train)
    runs = commands.add_parser("run", help="train arms by seeds")
    table = commands.add_parser("table", help="write the table of results")
    for one in (runs, table):
        one.add_argument("manifest", type=Path, help="TOML file: seeds, run, results, baseline, [common], [[arm]]")
    runs.add_argument("--only", nargs="+", default=[], metavar="ARM", help="arms, by name")
    runs.set_defaults(run=lambda options: run_arms(Manifest.load(options.manifest), options.only))
    table.add_argument("--out", type=Path, help="Markdown file to write, in place of printing")
    table.set_defaults(run=_table)
    options = parser.parse_args()
    options.run(options)


def _probe(options: argparse.Namespace) -> None:
    fit_probe(cache.load_records(options.cache), options.steps).save(options.out)


def _ceiling(options: argparse.Namespace) -> None:
    corpus = DistilCorpus.load(DistilRecipe(cache=options.cache))
    figures = measure_teacher(corpus.records, PhoneProbe.load(options.probe), corpus.header.normalisation)
    print("\n".join(f"{name:14}{value:.3f}" for name, value in figures.items()))


def _train(options: argparse.Namespace) -> None:
    recipe = read_config(options.config, PRESETS)
    train(recipe, DistilCorpus.load(recipe))


def _table(options: argparse.Namespace) -> None:
    table = format_table(Manifest.load(options.manifest))
    if options.out:
        write_atomically(options.out, lambda file: file.write(table.encode()))
    else:
        print(table, end="")


if __name__ == "__main__":
    main()
