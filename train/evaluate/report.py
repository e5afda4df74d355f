"""Figures of films, ours and others': `python -m train.evaluate films|measures|talk|reenact`.

films FILMS [--reference FILMS]: any films as they are, by the table of measures, which `measures` tells. talk and
reenact DATA make films first, DATA being a folder with clips.csv. talk: the first frame of each film held out speaks
the film's own sound; the mouth tracked in what was rendered is compared with the real one. reenact: the first frame
follows the film itself. One line a film, then the summary. --out keeps the figures, so that the same command goes on
where it stopped, and of talk the first take of each film, which the table of measures then tells beside the real ones.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline, __version__
from kdtalker.weights.find import find
from train.evaluate.films import find_pairs, measure_films, tell_measures, write_report
from train.evaluate.held_out import Figures, Film, measured, real_films, reenact, talk
from train.harness.command import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of films.")
    commands = parser.add_subparsers(dest="what", required=True)
    films = commands.add_parser("films", help="finished films, of any system")
    films.add_argument("films", type=Path, help="a film, or a folder of films")
    films.add_argument("--reference", type=Path, help="the film to compare with, or a folder with films of those names")
    films.add_argument("--out", type=Path, required=True, help="folder for table, JSON and pictures")
    films.add_argument("--syncnet", type=Path, help="SyncNet's weights (.model), for LSE-C and LSE-D; unverified")
    commands.add_parser("measures", help="what each measure is")
    for name in ("talk", "reenact"):
        made = commands.add_parser(name, help="films that are made for it")
        made.add_argument("data", type=Path, help="folder with clips.csv")
        made.add_argument("--out", type=Path, help="folder that keeps figures, and films that talk")
        made.add_argument("--checkpoint", type=Path, help="a motion model of your own")
        made.add_argument("--seeds", type=int, default=8)
        made.add_argument("--guidance", type=float, default=Options().guidance)
    options = parser.parse_args()
    if options.what == "measures":
        print(tell_measures())
    elif options.what == "films":
        report(find_pairs(options.films, options.reference), options.out, options.syncnet)
    else:
        tell_held_out(options)


def report(pairs: list[tuple[Path, Path | None]], out: Path, syncnet: Path | None = None) -> None:
    """Measure films, each beside its reference where it has one, and tell the table."""
    rows, skipped = measure_films(pairs, syncnet)
    print(write_report(rows, skipped, out))
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


def tell_held_out(options: argparse.Namespace) -> None:
    """One line a film, then mean and median."""
    films, out, rows = real_films(options.data, ("val",)), options.out, []
    pipeline = TalkingPortraitPipeline.mesh(options.checkpoint)
    checkpoint = options.checkpoint or find("mesh_motion.safetensors")
    asked = {
        "version": __version__,
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "seeds": options.seeds,
        "guidance": options.guidance,
    }
    if out:
        (out / "films").mkdir(parents=True, exist_ok=True)

    def kept(film: Film) -> Path | None:
        return out and out / "films" / f"{film.path.stem}.mp4"

    def measure(film: Film) -> Figures:
        if options.what == "reenact":
            return reenact(film, pipeline)
        return talk(film, pipeline, options.seeds, options.guidance, kept(film))

    for film, figures in measured(films, measure, out and out / f"{options.what}.json", asked):
        if not rows:
            print(" | ".join(["film", *figures]))
        rows.append(list(figures.values()))
        print(" | ".join([film.path.name, *(f"{value:.3f}" for value in figures.values())]), flush=True)
    for name, summary in (("mean", np.mean), ("median", np.median)):
        print(" | ".join([name, *(f"{value:.3f}" for value in summary(rows, axis=0))]))
    if out and options.what == "talk":
        report([(kept(film), film.path) for film in films], out)


if __name__ == "__main__":
    main()
