"""Benchmark the command line by films of the bundled portrait and voice, as ratios that hold on any machine."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.bench.inputs import CROP, PORTRAIT, VOICE, WIDE, Inputs
from train.bench.process import measure_command
from train.bench.record import ROOT, BenchRecord
from train.harness.provenance import describe_commit

ROUNDS = 5
SOUND_S = {CROP: 6.0, "1920x1080": 6.0, "3840x2160": 3.0}  # of the sound, for each portrait's size
LONG_S = (600, 3600)  # lengths of the sound in s of --long, for the sizes LONG_SIZES
LONG_SIZES = (CROP, "1920x1080")

Raw = dict[str, Any]


@dataclass(frozen=True)
class FilmBenchmark:
    """Measure a checkout of the project, in rounds of some PARTS. inputs: pictures and sounds; seconds: length of the
    sound, None for that of SOUND_S."""

    inputs: Inputs
    parts: Sequence[str]
    seconds: float | None = None

    def measure_round(self, tree: Path) -> Raw:
        """Measure each part once. Raises CalledProcessError where the command fails."""
        return {part: PARTS[part](self, tree) for part in self.parts}

    def warm_up(self, tree: Path) -> None:
        """Make one film that is not measured: it compiles, and fills the caches of files."""
        measure_command(self._command(tree, CROP, 0), _environment(tree))

    def film(self, tree: Path, size: str, seconds: float | None = None) -> Raw:
        """Measure a film of one frame and one of a length in s."""
        seconds = seconds or self._seconds(size)
        first, whole = (
            asdict(measure_command(self._command(tree, size, length), _environment(tree))) for length in (0, seconds)
        )
        return {"seconds": seconds, "first": first, "film": whole}

    def stages(self, tree: Path) -> Raw:
        """Profile a warm process, see `stages.profile`."""
        script = str(Path(__file__).with_name("stages.py"))
        result = self.inputs.folder / "stages.json"
        arguments = self._arguments(CROP, self._seconds(CROP))
        measure_command([sys.executable, script, str(result), *arguments], _environment(tree))
        profiled: Raw = json.loads(result.read_text("utf-8"))
        return profiled

    def demo(self, tree: Path) -> Raw:
        """Measure the command of `make demo`."""
        output = str(self.inputs.folder / "demo.mp4")
        arguments = ["--image", str(PORTRAIT), "--audio", str(VOICE), "--output", output]
        return asdict(measure_command([sys.executable, str(tree / "inference.py"), *arguments], _environment(tree)))

    def _seconds(self, size: str) -> float:
        return self.seconds or SOUND_S[size]

    def _arguments(self, size: str, seconds: float) -> list[str]:
        output = str(self.inputs.folder / "film.mp4")
        return [*self.inputs.picture(size), *self.inputs.voice(seconds), "--output", output]

    def _command(self, tree: Path, size: str, seconds: float) -> list[str]:
        return [sys.executable, str(tree / "inference.py"), *self._arguments(size, seconds), "--quiet"]


def _environment(tree: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(tree)}


def _measure_torch(_benchmark: FilmBenchmark, tree: Path) -> Raw:
    return asdict(measure_command([sys.executable, "-c", "import torch"], _environment(tree)))


def _film_of(size: str) -> Callable[[FilmBenchmark, Path], Raw]:
    return lambda benchmark, tree: benchmark.film(tree, size)


# What a round measures, by name.
PARTS: dict[str, Callable[[FilmBenchmark, Path], Raw]] = {
    "torch": _measure_torch,
    **{size: _film_of(size) for size in (CROP, *WIDE)},
    "stages": FilmBenchmark.stages,
    "demo": FilmBenchmark.demo,
}


def compute_figures(raw: Raw) -> dict[str, float]:
    """Compute the figures of one round from its raw values, by name with unit; ratios have none."""
    figures: dict[str, float] = {}
    for part, films in raw.items():
        if "film" in films:
            figures |= _film_figures(part, films)
    if "torch" in raw:
        figures["import torch, s"] = raw["torch"]["wall_s"]
        if CROP in raw:
            figures[f"{CROP}: start-up / import torch"] = raw[CROP]["first"]["wall_s"] / raw["torch"]["wall_s"]
    if "stages" in raw:
        stages = raw["stages"]
        if CROP in raw:
            figures[f"{CROP}: beyond start-up / encoding alone"] = (
                _beyond_start(raw[CROP], "wall_s") / stages["encoding_s"]
            )
        figures |= {f"{stage}, ms a second of film": spent for stage, spent in stages["second_of_film_ms"].items()}
        figures |= {f"{stage}, ms": spent for stage, spent in stages["once_ms"].items()}
    if "demo" in raw:
        figures["make demo, s"] = raw["demo"]["wall_s"]
    return figures


def _film_figures(part: str, films: Raw) -> dict[str, float]:
    seconds, whole = films["seconds"], films["film"]
    return {
        f"{part}: beyond start-up / sound": _beyond_start(films, "wall_s") / seconds,
        f"{part}: start-up, s": films["first"]["wall_s"],
        f"{part}: processor s a second of film": _beyond_start(films, "cpu_s") / seconds,
        f"{part}: peak memory, MB": whole["peak_mb"],
    }


def _beyond_start(films: Raw, resource: str) -> float:
    """Subtract what a film of one frame takes."""
    beyond: float = films["film"][resource] - films["first"][resource]
    return beyond


def measure_in_turns(benchmark: FilmBenchmark, sides: Sequence[tuple[Path, BenchRecord]], rounds: int) -> None:
    """Measure checkouts in turns, A B A B ...; the records are saved after each round."""
    for tree, _ in sides:
        benchmark.warm_up(tree)
    for done in range(1, rounds + 1):
        for tree, record in sides:
            raw = benchmark.measure_round(tree)
            record.add(compute_figures(raw), raw)
            path = record.save()
            print(f"round {done} of {rounds}: {record.commit}, {path}", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose what is measured, and how often."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--seconds", type=float, help="length of the sound; default: 6, and 3 for the largest picture")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m train.bench film", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--long", action="store_true", help="then ten minutes and an hour of sound, once each")
    parser.add_argument("--name", default=describe_commit(ROOT), help="of results/bench/NAME.json; default: the commit")
    chosen = parser.parse_args(arguments)
    record = BenchRecord(chosen.name, "film")
    with tempfile.TemporaryDirectory() as folder:
        benchmark = FilmBenchmark(Inputs(Path(folder)), chosen.parts, chosen.seconds)
        measure_in_turns(benchmark, [(ROOT, record)], chosen.rounds)
        for size in LONG_SIZES if chosen.long else ():
            for seconds in LONG_S:
                raw = {f"{size}, {seconds} s of sound": benchmark.film(ROOT, size, seconds)}
                record.add(compute_figures(raw), raw)
                record.save()
    print(record.table())
    print(record.save())
