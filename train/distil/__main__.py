"""Distil the speech models into a causal student: `python -m train.distil COMMAND`, one of cache, probe,
ceiling, train, run, table."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdtalker.core.files import write_atomically
from train.distil import cache
from train.distil.ceiling import measure_teacher
from train.distil.probe import PhoneProbe, fit_probe
from train.distil.recipe import PRESETS, DistilRecipe
from train.distil.table import Manifest, format_table, run_arms
from train.distil.trainer import DistilCorpus, train
from train.harness.command import command
from train.harness.config import read_config


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Distil the speech models into a causal student.")
    commands = parser.add_subparsers(dest="command", required=True)
    cache.add_arguments(commands.add_parser("cache", help="write the teacher's outputs for shards and sounds"))
    probe = commands.add_parser("probe", help="train the phone probe on cached features")
    probe.add_argument("cache", type=Path, help="folder that `cache` wrote")
    probe.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    probe.add_argument("--steps", type=int, default=3000)
    ceiling = commands.add_parser("ceiling", help="measure the teacher as students are measured")
    ceiling.add_argument("cache", type=Path, help="folder that `cache` wrote; with --lookahead for the second ceiling")
    ceiling.add_argument("--probe", type=Path, required=True, help="file that `probe` wrote")
    trains = commands.add_parser("train", help="train one arm")
    trains.add_argument("config", type=Path, help="TOML file: method, cache, probe, run, and whatever is to differ")
    for name, text in (("run", "train arms by seeds"), ("table", "write the table of results")):
        one = commands.add_parser(name, help=text)
        one.add_argument("manifest", type=Path, help="TOML file: seeds, run, baseline, [common], [[arm]]")
        if name == "run":
            one.add_argument("--only", nargs="+", default=[], metavar="ARM", help="arms, by name")
        else:
            one.add_argument("--out", type=Path, help="Markdown file to write, in place of printing")
    options = parser.parse_args()
    if options.command == "cache":
        cache.run(options)
    elif options.command == "probe":
        fit_probe(cache.load_records(options.cache), options.steps).save(options.out)
    elif options.command == "ceiling":
        corpus = DistilCorpus.load(DistilRecipe(cache=options.cache))
        figures = measure_teacher(corpus.records, PhoneProbe.load(options.probe), corpus.header.normalisation)
        print("\n".join(f"{name:14}{value:.3f}" for name, value in figures.items()))
    elif options.command == "train":
        recipe = read_config(options.config, PRESETS)
        train(recipe, DistilCorpus.load(recipe))
    elif options.command == "run":
        run_arms(Manifest.load(options.manifest), options.only)
    else:
        table = format_table(Manifest.load(options.manifest))
        if options.out:
            write_atomically(options.out, lambda file: file.write(table.encode()))
        else:
            print(table, end="")


if __name__ == "__main__":
    main()
