"""Run arms by seeds from a manifest, and write the table of their results.

    python -m train.distil run MANIFEST [--only ARM...]    trains what is missing, resumes what was interrupted
    python -m train.distil table MANIFEST [--out FILE]     writes the table of what is there

The manifest is TOML: `seeds`, `run` (folder), `baseline` (name of an arm), a table [common] of settings of the recipe,
and [[arm]] tables, each with a `name`, the `figure` that decides, named before the run, and its own settings."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli

from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from train.distil.figures import bootstrap_interval
from train.distil.recipe import PRESETS, DistilRecipe
from train.distil.trainer import FIGURES_FILE, DistilCorpus, train
from train.harness.config import overlay

LOWER_IS_BETTER = ("FER", "FER macro", "FER inside", "NLL", "ECE", "ECE mass", "viseme error", "lag")
COLUMNS = ("FER", "NLL", "ECE", "viseme error", "r", "amplitude", "lag")
WHOLE_FILE = "whole.json"  # written when an arm has come to its last step


@dataclass(frozen=True)
class PlannedArm:
    """Describe one arm: its name, the figure that decides, and its recipe but for seed and folder."""

    name: str
    figure: str
    recipe: DistilRecipe


@dataclass(frozen=True)
class Manifest:
    """Hold the plan of a comparison."""

    run: Path
    seeds: tuple[int, ...]
    baseline: str
    arms: tuple[PlannedArm, ...]

    @staticmethod
    def load(path: Path) -> Manifest:
        """Read a manifest. Raises InputError where it is missing, no TOML, or does not fit."""
        try:
            table = tomli.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
            raise InputError(f"The manifest '{path}' cannot be read ({error}), wanted a TOML file.") from None
        unknown = sorted(set(table) - {"run", "seeds", "baseline", "common", "arm"})
        if unknown:
            raise InputError(f"The manifest '{path}' has the unknown key '{unknown[0]}'.")
        common = overlay(PRESETS["distil"], table.get("common", {}), f"The manifest '{path}', table [common],")
        arms = []
        for number, values in enumerate(table.get("arm", []), 1):
            own = dict(values)
            name, figure = str(own.pop("name", "")), str(own.pop("figure", "NLL"))
            if not name or "/" in name:
                raise InputError(f"Arm {number} of the manifest '{path}' has no `name` that a folder can have.")
            arms.append(PlannedArm(name, figure, overlay(common, own, f"The manifest '{path}', arm '{name}',")))
        names = [arm.name for arm in arms]
        baseline = str(table.get("baseline", names[0] if names else ""))
        if baseline not in names or len(set(names)) != len(names):
            raise InputError(f"The manifest '{path}' has the arms {', '.join(names) or 'none'}; each needs a name of "
                             f"its own, the baseline '{baseline}' too.")  # fmt: skip
        run, seeds = Path(table.get("run", "runs/distil")), tuple(table.get("seeds", [0, 1, 2]))
        return Manifest(run, seeds, baseline, tuple(arms))

    def folder(self, arm: PlannedArm, seed: int) -> Path:
        """Return the folder of one run."""
        return self.run / arm.name / str(seed)


def run_arms(manifest: Manifest, only: Sequence[str] = ()) -> None:
    """Train all arms by all seeds that are not whole yet, one after the other. Raises InputError for unknown arms."""
    names = [arm.name for arm in manifest.arms]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InputError(f"The manifest has no arm '{unknown[0]}'; it has {', '.join(names)}.")
    for seed in manifest.seeds:
        for arm in manifest.arms:
            folder = manifest.folder(arm, seed)
            if (only and arm.name not in only) or (folder / WHOLE_FILE).exists():
                continue
            print(f"{arm.name}, seed {seed}: {folder}", flush=True)
            recipe, began_s = replace(arm.recipe, run=folder, seed=seed), time.monotonic()
            train(recipe, DistilCorpus.load(recipe))
            taken = {"wall-clock s since the last start": round(time.monotonic() - began_s)}
            write_atomically(folder / WHOLE_FILE, lambda file, taken=taken: file.write(json.dumps(taken).encode()))  # type: ignore[misc]


def read_results(manifest: Manifest, arm: PlannedArm) -> list[dict[str, Any]]:
    """Read the figures of an arm's whole runs, one for each seed."""
    folders = [manifest.folder(arm, seed) for seed in manifest.seeds]
    return [json.loads((one / FIGURES_FILE).read_text("utf-8")) for one in folders if (one / WHOLE_FILE).exists()]


def format_table(manifest: Manifest) -> str:
    """Format the results as a table in Markdown: mean and deviation over seeds; the gain over the baseline in the
    figure that decides, with its 95 % interval over clips. An arm without all seeds has no figures."""
    results = {arm.name: read_results(manifest, arm) for arm in manifest.arms}
    head = ["arm", *COLUMNS, "decides by", "gain (95 %)", "counts", "shipped / extra parameters"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for arm in manifest.arms:
        found = results[arm.name]
        if len(found) < len(manifest.seeds):
            cells = [arm.name, f"{len(found)} of {len(manifest.seeds)} seeds", *[""] * (len(head) - 2)]
        else:
            sizes = found[0]["sizes"]
            cells = [arm.name, *(_spread(found, name) for name in COLUMNS), arm.figure,
                     *_gain(found, results[manifest.baseline], arm.figure),
                     f"{sizes['parameters'] / 1e6:.2f} M / {sizes['extra parameters'] / 1e6:.2f} M"]  # fmt: skip
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _spread(results: list[dict[str, Any]], name: str) -> str:
    values = [result["means"][name] for result in results if name in result["means"]]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}" if values else "–"


def _gain(ours: list[dict[str, Any]], baseline: list[dict[str, Any]], figure: str) -> tuple[str, str]:
    """Format the gain in a figure and whether it counts: its interval excludes 0, and it exceeds two deviations over
    seeds."""
    if len(baseline) != len(ours) or ours is baseline:
        return "", ""
    clips = sorted(name for name, values in baseline[0]["clips"].items() if figure in values)
    if not clips:
        return "no clip has it", ""
    sign = -1 if figure in LOWER_IS_BETTER else 1
    of_clips = np.array([[sign * (one["clips"][clip][figure] - other["clips"][clip][figure]) for clip in clips]
                         for one, other in zip(ours, baseline, strict=True)])  # fmt: skip
    low, high = bootstrap_interval(of_clips.mean(0))
    gain = float(of_clips.mean())
    values = [[result["means"][figure] for result in results] for results in (ours, baseline)]
    spread = max(float(np.std(one, ddof=min(1, len(one) - 1))) for one in values)
    counts = "yes" if (low > 0 or high < 0) and abs(gain) > 2 * spread else "no"
    return f"{gain:+.3f} ({low:+.3f} … {high:+.3f})", counts if gain >= 0 else f"{counts}, worse"
