"""Compare ways to learn a person: `python -m train.personal.ablation SHARDS --out OUT`.

SHARDS is a folder that `python -m train.data` wrote. Of each person with enough film there the last 20 s are held out
and the minute before is learned from, in every way of ARMS; then the dial is turned from everybody to the person. OUT
gets `figures.json` and `dial.png`: figures of the person, and of everybody else, the split "val", of which nobody is
learned from. Run it again to resume: a person who was measured with the same settings is not measured again."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtalker.core.errors import InputError, quote
from kdtalker.core.files import write_atomically
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.causal.personal import blend_personal
from kdtalker.diffusion.speech import STUDENT
from kdtalker.weights.find import find
from train.data.shards import Shard, load_shards
from train.distil.methods.personal import PersonalConfig
from train.harness.command import command
from train.harness.figures import Figure, Metrics, save_figure
from train.motion.dataset import VALIDATION_SPLIT
from train.personal.__main__ import EXAMPLES, THREADS
from train.personal.figures import gain, measure_clips_together
from train.personal.film import HeardClip, hear_clips
from train.personal.fit import fit_person, personal_tensors
from train.personal.student import BaseStudent

ARMS = {
    "fine-tune": PersonalConfig(trained="all", teacher="none"),  # between 0 and 1 of the dial: WiSE-FT (2109.01903)
    "L2-SP": PersonalConfig(trained="all", teacher="none", starting_weight=0.01),
    "LwF": PersonalConfig(teacher="old"),
    "Y-KD": PersonalConfig(),
    "delta only": PersonalConfig(trained="delta", teacher="none"),
}
DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)
HELD_OUT_S, LEARNED_S, LEAST_LEARNED_S = 20.0, 60.0, 20.0
COMPARED = ("r", "M-LMD")
OWN_GAIN, OTHERS_LOSS = 10.0, 2.0  # in %: wanted of a person in one of COMPARED, and no more lost of others in any


def split_film(clips: list[HeardClip]) -> tuple[list[HeardClip], list[HeardClip]]:
    """Split a person's clips into those to learn from and those held out, the last ones, cut where need be."""
    learned: list[HeardClip] = []
    held_out: list[HeardClip] = []
    missing = round(HELD_OUT_S * FRAME_RATE_HZ)
    for clip in reversed(clips):
        middle = max(0, len(clip) - missing)
        parts = clip.cut(0, middle), clip.cut(middle, len(clip))
        missing -= len(parts[1])
        learned += [parts[0]] if middle else []
        held_out += [parts[1]] if len(parts[1]) >= FRAME_RATE_HZ else []
    kept: list[HeardClip] = []
    left = round(LEARNED_S * FRAME_RATE_HZ)
    for clip in learned:
        kept += [clip.cut(max(0, len(clip) - left), len(clip))] if left > 0 else []
        left -= len(clip)
    return kept[::-1], held_out[::-1]


def choose_people(shards: list[Shard], names: list[str]) -> dict[str, list[Shard]]:
    """Group the training split by speaker: those that are named, else all with enough film. Raises InputError where one
    has too little, or none is left."""
    by_speaker: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.split != VALIDATION_SPLIT:
            by_speaker[shard.speaker].append(shard)
    seconds = {who: sum(len(one.landmarks) for one in group) / FRAME_RATE_HZ for who, group in by_speaker.items()}
    least = HELD_OUT_S + LEAST_LEARNED_S
    for name in names:
        if (found := seconds.get(name, 0.0)) < least:
            raise InputError(f"The shards hold {found:.0f} s of '{name}', wanted {least:.0f} s or more.")
    chosen = names or sorted(who for who, length in seconds.items() if length >= least)
    if not chosen:
        raise InputError(f"The shards hold nobody for {least:.0f} s or more; prepare longer films of one person.")
    return {who: by_speaker[who] for who in chosen}


def last_frames(shards: list[Shard]) -> list[Shard]:
    """Return the last shards, as many as are learned from and held out."""
    kept: list[Shard] = []
    left = (LEARNED_S + HELD_OUT_S) * FRAME_RATE_HZ
    for shard in reversed(shards):
        kept += [shard] if left > 0 else []
        left -= len(shard.landmarks)
    return kept[::-1]


def turn_dial(network: StudentNetwork, own: Mapping[str, Tensor], share: float) -> StudentNetwork:
    """Make the student at a share of the person."""
    tensors = {name: value.numpy() for name, value in (network.state_dict() | dict(own)).items()}
    made = StudentNetwork(network.config).eval().requires_grad_(False)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in blend_personal(tensors, share).items()})
    return made


def compare_arms(
    student: BaseStudent,
    clips: list[HeardClip],
    others: list[HeardClip],
    speech: list[Tensor],
    arms: Mapping[str, PersonalConfig],
) -> dict[str, Any]:
    """Learn a person in several ways and measure each over the dial: figures of the person's film held out and of
    others, by arm and share, and of others with the trunk of everybody and the general head."""
    learned, held_out = split_film(clips)
    result: dict[str, Any] = {}
    normalisation = student.normalisation
    for name, config in arms.items():
        person = fit_person(student, learned, speech, config)
        own = personal_tensors(person)
        dial = {}
        for share in DIAL:
            made = turn_dial(student.network, own, share)
            both = [measure_clips_together(made, one, normalisation) for one in (held_out, others)]
            dial[f"{share:g}"] = {"own": both[0], "others": both[1]}
        parameters = sum(weight.numel() for weight in person.parameters())
        result[name] = {"parameters": parameters, "dial": dial}
        if person.head is not None:
            apart = turn_dial(student.network, personal_tensors(person, general=True), 1.0)
            result[name]["others, general head"] = measure_clips_together(apart, others, normalisation)
    lengths = {"learned s": learned, "held out s": held_out}
    return {name: sum(map(len, part)) / FRAME_RATE_HZ for name, part in lengths.items()} | {"arms": result}


def summarise(people: Mapping[str, Any]) -> dict[str, dict[str, Metrics]]:
    """Average over people and seeds the gains in % of COMPARED, by arm and share."""
    gains: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for seeds in people.values():
        for arms in (one["arms"] for one in seeds.values()):
            for arm, found in arms.items():
                start = found["dial"]["0"]
                for share, both in found["dial"].items():
                    for whose in ("own", "others"):
                        for name in COMPARED:
                            gains[arm][share][f"{whose} {name}"].append(gain(name, both[whose], start[whose]))
    return {
        arm: {share: {name: float(np.mean(values)) for name, values in row.items()} for share, row in shares.items()}
        for arm, shares in gains.items()
    }


def read_figures(file: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Read the people that were measured, none where there is no such file. Raises InputError where they were measured
    with other settings or data."""
    if not file.exists():
        return {}
    known = json.loads(file.read_text("utf-8"))
    for name, value in asked.items():
        if known["asked"].get(name) != value:
            told = f"{name} = {quote(known['asked'].get(name))}, now it is {quote(value)}"
            raise InputError(f"'{file}' was measured with {told}; choose another --out.")
    people: dict[str, Any] = known["people"]
    return people


def meets_bars(row: Metrics) -> bool:
    """Tell whether mean gains are what is wanted: the person's in one figure, others' loss in none."""
    own, others = ([row[f"{whose} {name}"] for name in COMPARED] for whose in ("own", "others"))
    return max(own) >= OWN_GAIN and min(others) >= -OTHERS_LOSS


def format_summary(summary: Mapping[str, Mapping[str, Metrics]]) -> str:
    """Format the mean gains as a table in Markdown."""
    columns = [f"{whose} {name}" for whose in ("own", "others") for name in COMPARED]
    lines = [["arm", "dial", *(f"{name}, % better" for name in columns), "both bars"], ["---"] * (3 + len(columns))]
    for arm, shares in summary.items():
        lines += [
            [arm, share, *(f"{row[name]:+.1f}" for name in columns), "yes" if meets_bars(row) else "no"]
            for share, row in shares.items()
        ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot_dial(summary: Mapping[str, Mapping[str, Metrics]]) -> Figure:
    """Plot the gains over the dial, the person's above those of others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7))
    axes = figure.subplots(2, len(COMPARED), squeeze=False)
    for row, whose in zip(axes, ("own", "others"), strict=True):
        for axis, name in zip(row, COMPARED, strict=True):
            for arm, shares in summary.items():
                axis.plot([float(share) for share in shares], [one[f"{whose} {name}"] for one in shares.values()],
                          marker="o", label=arm)  # fmt: skip
            axis.axhline(OWN_GAIN if whose == "own" else -OTHERS_LOSS, color="k", linestyle=":")
            axis.set(title=f"{'the person' if whose == 'own' else 'everybody else'}: {name}", xlabel="dial",
                     ylabel="% better")  # fmt: skip
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def measure_people(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all people who are not yet, and return the figures of each by seed. Raises InputError where the shards
    hold nobody to learn from or nobody else."""
    base = options.student or find(STUDENT)
    student, shards = BaseStudent.load(base), list(load_shards(options.shards))
    people = choose_people(shards, options.people)
    general = [shard for shard in shards if shard.split == VALIDATION_SPLIT and shard.synced]
    if not general:
        raise InputError(f"The shards in '{options.shards}' hold nobody of the split 'val' in sync with the sound.")
    others, _ = hear_clips(general, student)
    speech, file = student.encode_files(options.speech), options.out / "figures.json"
    asked = {
        "student": hashlib.sha256(base.read_bytes()).hexdigest(),
        "speech": [str(place) for place in options.speech],
        "shards": {"clips": len(shards), "frames": sum(len(shard.landmarks) for shard in shards)},
        "arms": options.arms,
        "seeds": options.seeds,
        "steps": options.steps,
    }
    found = read_figures(file, asked)
    for who in (who for who in people if who not in found):
        clips, lags = hear_clips(last_frames(people[who]), student)
        found[who] = {}
        for seed in range(options.seeds):
            arms = {name: replace(ARMS[name], seed=seed, steps=options.steps) for name in options.arms}
            measured = compare_arms(student, clips, others, speech, arms)
            found[who][str(seed)] = measured | {"lags": {film: list(lag) for film, lag in lags.items()}}
        content = json.dumps({"asked": asked, "people": found, "mean gains in %": summarise(found)}, indent=1).encode()
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda written, content=content: written.write(content))  # type: ignore[misc]
        print(f"{who} is measured", flush=True)
    return {who: found[who] for who in people}


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder that `python -m train.data` wrote")
    parser.add_argument("--student", type=Path, help="the student to change; default: that of the package")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--people", nargs="+", default=[], help="speakers (default: all with 40 s or more)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="ways to learn (default: all)")
    parser.add_argument("--speech", type=Path, nargs="+", default=[EXAMPLES], help="sounds of others: files, folders")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--steps", type=int, default=PersonalConfig.steps, help="of each training")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    summary = summarise(measure_people(options))
    save_figure(plot_dial(summary), options.out / "dial.png")
    print(format_summary(summary))


if __name__ == "__main__":
    main()
