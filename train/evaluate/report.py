"""Measure videos, ours and others': `python -m train.evaluate films|measures|talk|reenact|gallery`.

films FILMS [--reference FILMS]: compute the metrics that `measures` lists of any finished videos. talk and reenact DATA
generate videos first, DATA being a folder with clips.csv. talk: the first frame of each clip of the validation split
speaks the clip's own sound; the mouth tracked in the rendered video is compared with the real one. reenact:
self-reenactment from the first frame. One line a clip, then the summary. --out keeps the metrics, so that the same
command resumes, and of talk the videos of seed 0, which are then measured beside the real ones as with `films`.
gallery: portraits speak voices, to be looked at, with a page on which the faults are then written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline, __version__
from kdtalker.weights.find import find
from train.evaluate.films import (
    PublishedNetworks,
    describe_metrics,
    measure_films,
    pair_with_references,
    write_report,
)
from train.evaluate.gallery import make_gallery, plan
from train.evaluate.held_out import (
    HeldOutClip,
    measure_clips,
    measure_reenactment,
    measure_speech,
    read_held_out,
)
from train.harness.command import command
from train.harness.figures import Metrics


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of films.")
    commands = parser.add_subparsers(dest="what", required=True)
    films = commands.add_parser("films", help="finished films, of any system")
    films.add_argument("films", type=Path, help="a film, or a folder of films")
    films.add_argument("--reference", type=Path, help="the film to compare with, or a folder with films of those names")
    films.add_argument("--out", type=Path, required=True, help="folder for table, JSON and pictures")
    films.add_argument("--weights", type=Path, help="folder with the networks of published measures, searched first")
    commands.add_parser("measures", help="what each measure is")
    for name in ("talk", "reenact"):
        made = commands.add_parser(name, help="films that are made for it")
        made.add_argument("data", type=Path, help="folder with clips.csv")
        made.add_argument("--out", type=Path, help="folder that keeps figures, and films that talk")
        made.add_argument("--checkpoint", type=Path, help="a motion model of your own")
        made.add_argument("--seeds", type=int, default=8)
        made.add_argument("--guidance", type=float, default=Options().guidance)
        made.add_argument("--lookahead", type=int, default=Options().lookahead, help="as of films; of talk alone")
    gallery = commands.add_parser("gallery", help="contact sheets and mouths of portraits that speak voices")
    gallery.add_argument("--portraits", type=Path, nargs="+", default=[], help="pictures that may be shown")
    gallery.add_argument("--described", type=Path, nargs="+", default=[], help="pictures that are only described")
    gallery.add_argument("--voices", type=Path, nargs="+", required=True, help="sounds")
    gallery.add_argument("--seconds", type=float, default=6.0, help="length of a film at most")
    gallery.add_argument("--out", type=Path, required=True, help="folder for gallery.md, pictures and films")
    options = parser.parse_args()
    if options.what == "measures":
        print(describe_metrics())
    elif options.what == "gallery":
        exhibits = plan(options.portraits, options.described, options.voices)
        for line in make_gallery(TalkingPortraitPipeline.mesh(), exhibits, options.seconds, options.out):
            print(line, flush=True)
    elif options.what == "films":
        report(pair_with_references(options.films, options.reference), options.out, options.weights)
    else:
        report_held_out(options)


def report(pairs: list[tuple[Path, Path | None]], out: Path, weights: Path | None = None) -> None:
    """Measure videos, each beside its reference where it has one; write and print the table."""
    published = PublishedNetworks.load(weights)
    measured = measure_films(pairs, published)
    print(write_report(measured, out))
    for name, reason in measured.skipped.items():
        print(f"skipped {name}: {reason}")
    print(*published.describe_missing(weights), sep="\n")


def report_held_out(options: argparse.Namespace) -> None:
    """Measure generated clips of the validation split; print one line a clip, then mean and median."""
    clips = read_held_out(options.data, ("val",))
    out: Path | None = options.out
    rows: list[list[float]] = []
    pipeline = TalkingPortraitPipeline.mesh(options.checkpoint)
    checkpoint = options.checkpoint or find("mesh_motion.safetensors")
    asked = {
        "version": __version__,
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "seeds": options.seeds,
        "guidance": options.guidance,
        "lookahead": options.lookahead,
    }
    if out:
        (out / "films").mkdir(parents=True, exist_ok=True)

    def kept(clip: HeldOutClip) -> Path | None:
        return out / "films" / f"{clip.path.stem}.mp4" if out else None

    def measure(clip: HeldOutClip) -> Metrics:
        if options.what == "reenact":
            return measure_reenactment(clip, pipeline)
        asked_of = Options(guidance=options.guidance, lookahead=options.lookahead)
        return measure_speech(clip, pipeline, options.seeds, asked_of, kept(clip))

    for clip, metrics in measure_clips(clips, measure, out and out / f"{options.what}.json", asked):
        if not rows:
            print(" | ".join(["film", *metrics]))
        rows.append(list(metrics.values()))
        print(" | ".join([clip.path.name, *(f"{value:.3f}" for value in metrics.values())]), flush=True)
    for name, summary in (("mean", np.mean), ("median", np.median)):
        print(" | ".join([name, *(f"{value:.3f}" for value in summary(rows, axis=0))]))
    if out and options.what == "talk":
        report([(made, clip.path) for clip in clips if (made := kept(clip)) is not None], out)


if __name__ == "__main__":
    main()
