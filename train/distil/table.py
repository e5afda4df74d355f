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
from train.distil.measure.rows import ResultRow, row_path
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
    train, which trains one and writes its row; figure, which decides by default; compared, figures whose differences to
    the baseline are shown of every arm; groups of figures, means over clips, by title; costs, by title, functions of an
    arm's rows to a cell."""

    presets: Mapping[str, Training]
    load: Callable[[Any], StudyCorpus]
    places: Callable[[Any], Hashable]
    train: Callable[[Any, Any], None]
    figure: str
    compared: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    costs: Mapping[str, Callable[[list[ResultRow]], str]]


def mean_cost(name: str, form: str = "{:.1f}", scale: float = 1.0) -> Callable[[list[ResultRow]], str]:
    """Make a column of a figure of cost, its mean over seeds."""
    return lambda rows: form.format(scale * float(np.mean([row.cost[name] for row in rows])))


def passes_a_step(rows: list[ResultRow]) -> str:
    """Format how often a step calls the teacher's networks."""
    return f"{np.mean([sum(row.cost['teacher passes'].values()) / row.steps for row in rows]):.1f}"


def commits(rows: list[ResultRow]) -> str:
    """Name the commits that made rows."""
    return ", ".join(sorted({row.commit for row in rows}))


TRAINING_COSTS: Mapping[str, Callable[[list[ResultRow]], str]] = {
    "commit": commits,
    "steps": lambda rows: str(rows[0].steps),
    "minutes": mean_cost("wall-clock s", "{:.0f}", 1 / 60),
    "processor minutes": mean_cost("processor s", "{:.0f}", 1 / 60),
    "teacher passes a step": passes_a_step,
    "shipped": mean_cost("parameters", "{:.2f} M", 1e-6),
    "extra in training": mean_cost("extra parameters", "{:.2f} M", 1e-6),
}
SPEECH = Study(
    PRESETS, DistilCorpus.load, lambda recipe: (recipe.cache, recipe.more, recipe.teacher), train, "NLL",
    compared=("r", "closures met", "M-LMD", "KL", "NLL"),
    groups={
        "Phones and features": ("FER", "NLL", "ECE", "viseme error", "KL", "agreement", "CKA", "p b m - vowels"),
        "Motion, clips with films": ("r", "r mean", "amplitude", "lag", "closures met", "closures made", "M-LMD"),
        "Motion against the teacher, sounds without films": (
            "teacher r", "teacher amplitude", "teacher closures met",
        ),
        "Liveliness; the last ten seconds of a minute": (
            "mouth jerk", "head jerk", "yaw", "pitch", "roll", "long amplitude", "long drift",
        ),
    },
    costs={
        **TRAINING_COSTS,
        "MMAC a frame": mean_cost("MMAC"),
        "ms a frame, p50": mean_cost("ms p50"),
        "p95": mean_cost("ms p95"),
        "latency, ms": mean_cost("latency ms", "{:.0f}"),
        "of 400 ms": mean_cost("of the budget", "{:.0f} %", 100),
    },
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
        if difference := ResultRow.load(path).difference(recipe.fixed, manifest.defaults, corpus.identity):
            raise InputError(f"The row '{path}' was made with {difference}; remove it, or name the arm otherwise.")
        return
    print(f"{arm.name}, seed {recipe.seed}: {recipe.run}", flush=True)
    manifest.study.train(recipe, corpus)
    replace(ResultRow.load(recipe.run / FIGURES_FILE), name=arm.name).save(manifest.results)


def read_rows(manifest: Manifest, arm: PlannedArm) -> list[ResultRow]:
    """Read the rows of an arm, one for each seed that has come to its last step."""
    paths = [row_path(manifest.results, arm.name, seed) for seed in manifest.seeds]
    return [ResultRow.load(path) for path in paths if path.exists()]


def format_table(manifest: Manifest) -> str:
    """Format the results as tables in Markdown: the gain over the arm's baseline in the figure that decides, with its
    95 % interval over clips; differences in other figures; figures, mean and deviation over seeds; cost. An arm without
    all seeds has no figures."""
    study = manifest.study
    rows = {arm.name: read_rows(manifest, arm) for arm in manifest.arms}
    whole = [arm for arm in manifest.arms if len(rows[arm.name]) == len(manifest.seeds)]
    verdicts = [["arm", "beside", "decides by", "gain (95 %)", "counts"]]
    for arm in manifest.arms:
        found = rows[arm.name]
        gain = _gain(found, rows[arm.baseline], arm.figure) if arm in whole else (_missing(found, manifest), "")
        beside = "" if arm.baseline == arm.name else arm.baseline
        verdicts.append([arm.name, beside, arm.figure, *gain])
    compared = [arm for arm in whole if arm.baseline != arm.name]
    differences = [
        [arm.name, arm.baseline, *(_gain(rows[arm.name], rows[arm.baseline], name)[0] for name in study.compared)]
        for arm in compared
    ]
    parts = ["### Gain in the figure that decides", _markdown(verdicts),
             "### Gain in other figures", _markdown([["arm", "beside", *study.compared], *differences])]  # fmt: skip
    for title, columns in study.groups.items():
        shown = [name for name in columns if any(name in row.means for arm in whole for row in rows[arm.name])]
        if shown:
            figures = [[arm.name, *(_spread(rows[arm.name], name) for name in shown)] for arm in whole]
            parts += [f"### {title}", _markdown([["arm", *shown], *figures])]
    costs = [[arm.name, *(describe(rows[arm.name]) for describe in study.costs.values())] for arm in whole]
    parts += ["### Cost", _markdown([["arm", *study.costs], *costs])]
    return "\n\n".join(parts) + "\n"


def _missing(rows: list[ResultRow], manifest: Manifest) -> str:
    return f"{len(rows)} of {len(manifest.seeds)} seeds"


def _markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rest))


def _spread(rows: list[ResultRow], name: str) -> str:
    values = [row.means[name] for row in rows if name in row.means]
    if not values:
        return "–"
    digits = 1 if max(map(abs, values)) >= 10 else 3
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=min(1, len(values) - 1)):.{digits}f}"


def _gain(ours: list[ResultRow], baseline: list[ResultRow], figure: str) -> tuple[str, str]:
    """Format the gain in a figure and whether it counts: its interval excludes 0, and it exceeds two deviations over
    seeds."""
    if len(baseline) != len(ours) or ours is baseline:
        return "", ""
    rows = *ours, *baseline
    clips = sorted(clip for clip in rows[0].clips if all(figure in row.clips.get(clip, {}) for row in rows))
    if not clips:
        return "no clip has it", ""
    sign = -1 if figure in LOWER_IS_BETTER else 1
    of_clips = np.array([[sign * (one.clips[clip][figure] - other.clips[clip][figure]) for clip in clips]
                         for one, other in zip(ours, baseline, strict=True)])  # fmt: skip
    low, high = bootstrap_interval(of_clips.mean(0))
    gain = float(of_clips.mean())
    values = [[row.means[figure] for row in group] for group in (ours, baseline)]
    spread = max(float(np.std(one, ddof=min(1, len(one) - 1))) for one in values)
    counts = "yes" if (low > 0 or high < 0) and abs(gain) > 2 * spread else "no"
    return f"{gain:+.3f} ({low:+.3f} … {high:+.3f})", counts if gain >= 0 else f"{counts}, worse"
