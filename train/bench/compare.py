"""Compare two commits, checkouts or results: `python -m train.bench compare A B`.

A and B are each a commit, the folder of a checkout, or a JSON file of an earlier run. Commits are checked out into
temporary git worktrees and share this Python environment; commits and checkouts are measured in turns, A B A B ...
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kdtalker.core.errors import InputError
from train.bench.film import FilmBenchmark, add_arguments, measure_in_turns
from train.bench.inputs import Inputs
from train.bench.record import ROOT, BenchRecord, align, number
from train.harness.provenance import describe_commit


def open_checkout(name: str, stack: ExitStack) -> Path:
    """Return the folder of a checkout, or check a commit out into a temporary worktree. Raises InputError."""
    if Path(name).is_dir():
        return Path(name).resolve()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    added = subprocess.run(
        [*git, "add", "--detach", str(folder), name], capture_output=True, text=True, check=False
    )  # fmt: skip
    if added.returncode:
        raise InputError(f"'{name}' is no commit, folder or file ({added.stderr.strip().splitlines()[-1]}).")
    stack.callback(subprocess.run, [*git, "remove", "--force", str(folder)], check=True)
    return folder


def compare_table(first: BenchRecord, second: BenchRecord) -> str:
    """Format the medians of the figures that both records have, their ratio, and each one's spread: largest minus
    smallest value in % of the median, of two rounds or more."""
    rows: list[tuple[str, ...]] = [("figure", "A", "B", "B / A", "spread A", "spread B")]
    for name in (name for name in first.figures if name in second.figures):
        values = first.figures[name], second.figures[name]
        medians = [statistics.median(side) for side in values]
        ratio = f"{medians[1] / medians[0]:.3f}" if medians[0] else "-"
        spreads = [
            f"{100 * (max(side) - min(side)) / abs(median):.0f} %" if median and len(side) > 1 else "-"
            for side, median in zip(values, medians, strict=True)
        ]
        rows.append((name, *map(number, medians), ratio, *spreads))
    return align(rows)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for side in "AB":
        parser.add_argument(side)
    add_arguments(parser)
    chosen = parser.parse_args(arguments)
    records, measured = [], []
    with ExitStack() as stack:
        for name, letter in ((getattr(chosen, side), side) for side in "AB"):
            if Path(name).is_file():
                records.append(BenchRecord.load(Path(name)))
                continue
            tree = open_checkout(name, stack)
            commit = describe_commit(tree)
            records.append(BenchRecord(f"{commit}-{letter}", "film", commit))
            measured.append((tree, records[-1]))
        if measured:
            inputs = Inputs(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            measure_in_turns(FilmBenchmark(inputs, chosen.parts, chosen.seconds), measured, chosen.rounds)
    for letter, record in zip("AB", records, strict=True):
        print(f"{letter}: {record.commit}, {record.date}, {record.machine['cores']} x {record.machine['cpu']}")
    print(compare_table(*records))
