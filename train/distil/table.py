"""Run arms by seeds from a manifest, and write the table of their results.

    python -m train.distil run MANIFEST [--only ARM...]    trains what is missing, resumes what was interrupted
    python -m train.distil table MANIFEST [--out FILE]     writes the table of what is there

The same commands of `train.distil.painter` do it for painters.

The manifest is TOML: `seeds`, `run` (folder of the runs), `results` (folder of the rows, a small file for each arm and
seed, from which alone the table is made; by default `rows` in `run`), `baseline` (name of an arm), a table [common] of
the `preset` and settings of the recipe, and [[arm]] tables, each with a `name`, the `figure` that decides, named before
the run, its own settings, and its `baseline` where that is another arm. Several processes may run one manifest at once:
each arm and seed is trained by one of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tomli
from filelock import FileLock, Timeout

from kdtalker.core.errors import InputError
from train.distil.figures import bootstrap_interval
from train.distil.measure.rows import Row, row_path
from train.distil.recipe import PRESETS
from train.distil.trainer import FIGURES_FILE, DistilCorpus, train
from train.harness.config import overlay
from train.harness.training import Training

LOWER_IS_BETTER = ("FER", "FER macro", "FER inside", "NLL", "ECE", "ECE mass", "viseme error", "lag", "KL", "M-LMD")
LOCK_FILE = "lock"


class StudyCorpus(Protocol):
    """Hold the data from which the arms of a study learn."""

    @property
    def identity(self) -> dict[str, int]:
        """Return counts and checksums by which rows of results recognise their data."""


@dataclass(frozen=True)
class Study:
    """Describe what is compared: presets of the recipe; load, which loads the data of one; places, what they depend on;
    train, which trains one and writes its row; figure, which decides by default; columns of the table, means over clips
    and figures of cost."""

    presets: Mapping[str, Training]
    load: Callable[[Any], StudyCorpus]
    places: Callable[[Any], Hashable]
    train: Callable[[Any, Any], None]
    figure: str
    columns: tuple[str, ...]
    costs: tuple[str, ...] = ()


SPEECH = Study(
    PRESETS, DistilCorpus.load, lambda recipe: (recipe.cache, recipe.teacher), train, "NLL",
    ("FER", "NLL", "ECE", "viseme error", "r", "amplitude", "lag"),
)  # fmt: skip


@dataclass(frozen=True)
class PlannedArm:
    """Describe one arm: its name, the figure that decides, the name of the arm that it is compared with, and its recipe
    but for seed and folder."""

    name: str
    figure: str
    baseline: str
    recipe: Training


@dataclass(frozen=True)
class Manifest:
    """Hold the plan of a comparison; defaults: of settings that are newer than a row."""

    study: Study
    defaults: Mapping[str, Any]
    run: Path
    results: Path
    seeds: tuple[int, ...]
    arms: tuple[PlannedArm, ...]

    @staticmethod
    def load(path: Path, study: Study = SPEECH) -> Manifest:
        """Read a manifest. Raises InputError where it is missing, no TOML, or does not fit."""
        try:
            table = tomli.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
            raise InputError(f"The manifest '{path}' cannot be read ({error}), wanted a TOML file.") from None
        unknown = sorted(set(table) - {"run", "results", "seeds", "baseline", "common", "arm"})
        if unknown:
            raise InputError(f"The manifest '{path}' has the unknown key '{unknown[0]}'.")
        settings = dict(table.get("common", {}))
        preset = settings.pop("preset", next(iter(study.presets)))
        if preset not in study.presets:
            known = ", ".join(study.presets)
            raise InputError(f"The manifest '{path}' names the preset {preset!r}, known are {known}.")
        common = overlay(study.presets[preset], settings, f"The manifest '{path}', table [common],")
        arms, first = [], table.get("arm", [{}])[0].get("name", "")
        for number, values in enumerate(table.get("arm", []), 1):
            own = dict(values)
            name, figure = str(own.pop("name", "")), str(own.pop("figure", study.figure))
            baseline = str(own.pop("baseline", table.get("baseline", first)))
            if not name or "/" in name:
                raise InputError(f"Arm {number} of the manifest '{path}' has no `name` that a folder can have.")
            recipe = overlay(common, own, f"The manifest '{path}', arm '{name}',")
            arms.append(PlannedArm(name, figure, baseline, recipe))
        run = Path(table.get("run", "runs/distil"))
        results, seeds = Path(table.get("results", run / "rows")), tuple(table.get("seeds", [0, 1, 2]))
        names = [arm.name for arm in arms]
        missing = [arm.baseline for arm in arms if arm.baseline not in names]
        if missing or not names or len({row_path(results, name, 0) for name in names}) != len(names):
            raise InputError(f"The manifest '{path}' has the arms {', '.join(names) or 'none'}; each needs a name of "
                             f"its own, and its baseline '{(missing or [first])[0]}' must be one of them.")  # fmt: skip
        return Manifest(study, study.presets[preset].fixed, run, results, seeds, tuple(arms))

    def folder(self, arm: PlannedArm, seed: int) -> Path:
        """Return the folder of one run."""
        return self.run / arm.name / str(seed)


def run_arms(manifest: Manifest, only: Sequence[str] = ()) -> None:
    """Train all arms by all seeds that have no row yet, one after the other; those that another process trains are left
    to it. Raises InputError for unknown arms, and for rows of other settings or data."""
    names = [arm.name for arm in manifest.arms]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InputError(f"The manifest has no arm '{unknown[0]}'; it has {', '.join(names)}.")
    corpora: dict[Hashable, StudyCorpus] = {}
    for seed in manifest.seeds:
        for arm in manifest.arms:
            if only and arm.name not in only:
                continue
            recipe = replace(arm.recipe, run=manifest.folder(arm, seed), seed=seed)
            places = manifest.study.places(recipe)
            if places not in corpora:
                corpora[places] = manifest.study.load(recipe)
            recipe.run.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(recipe.run / LOCK_FILE, timeout=0):
                    _run_arm(manifest, arm, recipe, corpora[places])
            except Timeout:
                print(f"{arm.name}, seed {seed}: another process trains it", flush=True)


def _run_arm(manifest: Manifest, arm: PlannedArm, recipe: Training, corpus: StudyCorpus) -> None:
    """Train one arm and keep its row, unless it is there. Raises InputError for a row of other settings or data."""
    path = row_path(manifest.results, arm.name, recipe.seed)
    if path.exists():
        if difference := Row.load(path).difference(recipe.fixed, manifest.defaults, corpus.identity):
            raise InputError(f"The row '{path}' was made with {difference}; remove it, or name the arm otherwise.")
        return
    print(f"{arm.name}, seed {recipe.seed}: {recipe.run}", flush=True)
    manifest.study.train(recipe, corpus)
    replace(Row.load(recipe.run / FIGURES_FILE), name=arm.name).save(manifest.results)


def read_rows(manifest: Manifest, arm: PlannedArm) -> list[Row]:
    """Read the rows of an arm, one for each seed that has come to its last step."""
    paths = [row_path(manifest.results, arm.name, seed) for seed in manifest.seeds]
    return [Row.load(path) for path in paths if path.exists()]


def format_table(manifest: Manifest) -> str:
    """Format the results as a table in Markdown: mean and deviation over seeds; the gain over the arm's baseline in the
    figure that decides, with its 95 % interval over clips. An arm without all seeds has no figures."""
    rows = {arm.name: read_rows(manifest, arm) for arm in manifest.arms}
    study = manifest.study
    head = ["arm", *study.columns, *study.costs, "decides by", "gain (95 %)", "counts", "shipped / extra parameters"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for arm in manifest.arms:
        found = rows[arm.name]
        if len(found) < len(manifest.seeds):
            cells = [arm.name, f"{len(found)} of {len(manifest.seeds)} seeds", *[""] * (len(head) - 2)]
        else:
            cost = found[0].cost
            cells = [arm.name, *(_spread(found, name) for name in study.columns),
                     *(_median_cost(found, name) for name in study.costs), arm.figure,
                     *_gain(found, rows[arm.baseline], arm.figure),
                     f"{cost['parameters'] / 1e6:.2f} M / {cost['extra parameters'] / 1e6:.2f} M"]  # fmt: skip
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _spread(rows: list[Row], name: str) -> str:
    values = [row.means[name] for row in rows if name in row.means]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}" if values else "–"


def _median_cost(rows: list[Row], name: str) -> str:
    values = [row.cost[name] for row in rows if name in row.cost]
    return f"{np.median(values):.3g}" if values else "–"


def _gain(ours: list[Row], baseline: list[Row], figure: str) -> tuple[str, str]:
    """Format the gain in a figure and whether it counts: its interval excludes 0, and it exceeds two deviations over
    seeds."""
    if len(baseline) != len(ours) or ours is baseline:
        return "", ""
    clips = sorted(name for name, values in baseline[0].clips.items() if figure in values)
    if not clips:
        return "no clip has it", ""
    sign = -1 if figure in LOWER_IS_BETTER else 1
    of_clips = np.array([[sign * (one.clips[clip][figure] - other.clips[clip][figure]) for clip in clips]
                         for one, other in zip(ours, baseline, strict=True)])  # fmt: skip
    low, high = bootstrap_interval(of_clips.mean(0))
    gain = float(of_clips.mean())
    values = [[row.means[figure] for row in rows] for rows in (ours, baseline)]
    spread = max(float(np.std(one, ddof=min(1, len(one) - 1))) for one in values)
    counts = "yes" if (low > 0 or high < 0) and abs(gain) > 2 * spread else "no"
    return f"{gain:+.3f} ({low:+.3f} … {high:+.3f})", counts if gain >= 0 else f"{counts}, worse"
