"""Distil the networks that paint a face into smaller ones: `python -m train.distil.painter COMMAND`, one of train, run,
table, cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdtalker.core.files import write_atomically
from train.distil.painter.corpus import PainterCorpus
from train.distil.painter.cost import graph_figures
from train.distil.painter.distiller import train
from train.distil.painter.kinds import KINDS
from train.distil.painter.recipe import PRESETS
from train.distil.table import TRAINING_COSTS, Manifest, Study, format_table, mean_cost, run_arms
from train.harness.command import command
from train.harness.config import read_config

PAINTERS = Study(
    PRESETS, PainterCorpus.load, lambda recipe: (type(recipe), recipe.records, recipe.teacher), train, "inside PSNR",
    compared=("inside PSNR", "whole PSNR", "flicker"),
    groups={"Pictures": ("inside PSNR", "over teacher", "whole PSNR", "flicker")},
    costs={
        **TRAINING_COSTS,
        "MMAC, of the teacher's": mean_cost("MMAC of the teacher's", "{:.2f}"),
        "ms, of the teacher's": mean_cost("ms of the teacher's", "{:.2f}"),
    },
)  # fmt: skip


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Distil the networks that paint a face into smaller ones.")
    commands = parser.add_subparsers(required=True)
    trains = commands.add_parser("train", help="train one arm")
    cost = commands.add_parser("cost", help="measure a student's graph and its teacher's, untrained")
    for one, run in ((trains, _train), (cost, _cost)):
        one.add_argument("config", type=Path, help="TOML file: preset, films, records, run, [distil] and so on")
        one.set_defaults(run=run)
    runs = commands.add_parser("run", help="train arms by seeds; those that were interrupted go on")
    runs.add_argument("--only", nargs="+", default=[], metavar="ARM", help="arms, by name")
    runs.set_defaults(run=lambda options: run_arms(Manifest.load(options.manifest, PAINTERS), options.only))
    table = commands.add_parser("table", help="write the table of results")
    table.add_argument("--out", type=Path, help="Markdown file to write, in place of printing")
    table.set_defaults(run=_table)
    for one in (runs, table):
        one.add_argument("manifest", type=Path, help="TOML file: seeds, run, results, baseline, [common], [[arm]]")
    options = parser.parse_args()
    options.run(options)


def _train(options: argparse.Namespace) -> None:
    recipe = read_config(options.config, PRESETS)
    train(recipe, PainterCorpus.load(recipe))


def _cost(options: argparse.Namespace) -> None:
    recipe = read_config(options.config, PRESETS)
    kind = KINDS[type(recipe)]
    networks = kind.build(recipe).eval(), kind.load_teacher(recipe.teacher)
    figures = graph_figures(*(kind.definition(one) for one in networks))
    print("\n".join(f"{name:24}{value:.3f}" for name, value in figures.items()))


def _table(options: argparse.Namespace) -> None:
    table = format_table(Manifest.load(options.manifest, PAINTERS))
    if options.out:
        write_atomically(options.out, lambda file: file.write(table.encode()))
    else:
        print(table, end="")


if __name__ == "__main__":
    main()
