"""Run arms by seeds from a manifest, and write the table of their results.

    python -m train.distil run MANIFEST [--only ARM...]    trains what is missing, resumes what was interrupted
    python -m train.distil table MANIFEST [--out FILE]     writes the table of what is there

The manifest is TOML: `seeds`, `run` (folder of the runs), `results` (folder of the rows, a small file for each arm and
seed, from which alone the table is made; by default `rows` in `run`), `baseline` (name of an arm), a table [common] of
settings of the recipe, and [[arm]] tables, each with a `name`, the `figure` that decides, named before the run, its own
settings, and its `baseline` where that is another arm. Several processes may run one manifest at once: each arm and
seed is trained by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tomli
from filelock import FileLock, Timeout

from kdtalker.core.errors import InputError
from train.distil.figures import bootstrap_interval
from train.distil.measure.rows import ResultRow, row_path
from train.distil.recipe import PRESETS, DistilRecipe
from train.distil.trainer import FIGURES_FILE, DistilCorpus, train
from train.harness.config import overlay

LOWER_IS_BETTER = ("FER", "FER macro", "FER inside", "NLL", "ECE", "ECE mass", "viseme error", "lag", "KL", "M-LMD")
PHONE_COLUMNS = ("FER", "NLL", "ECE", "viseme error", "KL", "agreement", "CKA", "p b m - vowels")
MOTION_COLUMNS = ("r", "r mean", "amplitude", "lag", "closures met", "closures made", "M-LMD")
LIFE_COLUMNS = ("mouth jerk", "head jerk", "yaw", "pitch", "roll", "long amplitude", "long drift")
UNFILMED_COLUMNS = ("teacher r", "teacher amplitude", "teacher closures met")
COMPARED = ("r", "closures met", "M-LMD", "KL", "NLL")  # differences to the baseline that are shown of every arm
LOCK_FILE = "lock"


@dataclass(frozen=True)
class PlannedArm:
    """Describe one arm: its name, the figure that decides, the name of the arm that it is compared with, and its recipe
    but for seed and folder."""

    name: str
    figure: str
    baseline: str
    recipe: DistilRecipe


@dataclass(frozen=True)
class Manifest:
    """Hold the plan of a comparison."""

    run: Path
    results: Path
    seeds: tuple[int, ...]
    arms: tuple[PlannedArm, ...]

    @staticmethod
    def load(path: Path) -> Manifest:
        """Read a manifest. Raises InputError where it is missing, no TOML, or does not fit."""
        try:
            table = tomli.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
            raise InputError(f"The manifest '{path}' cannot be read ({error}), wanted a TOML file.") from None
        unknown = sorted(set(table) - {"run", "results", "seeds", "baseline", "common", "arm"})
        if unknown:
            raise InputError(f"The manifest '{path}' has the unknown key '{unknown[0]}'.")
        common = overlay(PRESETS["distil"], table.get("common", {}), f"The manifest '{path}', table [common],")
        arms, first = [], table.get("arm", [{}])[0].get("name", "")
        for number, values in enumerate(table.get("arm", []), 1):
            own = dict(values)
            name, figure = str(own.pop("name", "")), str(own.pop("figure", "NLL"))
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
        return Manifest(run, results, seeds, tuple(arms))

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
    corpora: dict[tuple[Path, Path], DistilCorpus] = {}
    for seed in manifest.seeds:
        for arm in manifest.arms:
            if only and arm.name not in only:
                continue
            recipe = replace(arm.recipe, run=manifest.folder(arm, seed), seed=seed)
            places = recipe.cache, recipe.teacher
            if places not in corpora:
                corpora[places] = DistilCorpus.load(recipe)
            recipe.run.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(recipe.run / LOCK_FILE, timeout=0):
                    _run_arm(manifest, arm, recipe, corpora[places])
            except Timeout:
                print(f"{arm.name}, seed {seed}: another process trains it", flush=True)


def _run_arm(manifest: Manifest, arm: PlannedArm, recipe: DistilRecipe, corpus: DistilCorpus) -> None:
    """Train one arm and keep its row, unless it is there. Raises InputError for a row of other settings or data."""
    path = row_path(manifest.results, arm.name, recipe.seed)
    if path.exists():
        defaults = PRESETS["distil"].fixed
        if difference := ResultRow.load(path).difference(recipe.fixed, defaults, corpus.identity):
            raise InputError(f"The row '{path}' was made with {difference}; remove it, or name the arm otherwise.")
        return
    print(f"{arm.name}, seed {recipe.seed}: {recipe.run}", flush=True)
    train(recipe, corpus)
    replace(ResultRow.load(recipe.run / FIGURES_FILE), name=arm.name).save(manifest.results)


def read_rows(manifest: Manifest, arm: PlannedArm) -> list[ResultRow]:
    """Read the rows of an arm, one for each seed that has come to its last step."""
    paths = [row_path(manifest.results, arm.name, seed) for seed in manifest.seeds]
    return [ResultRow.load(path) for path in paths if path.exists()]


def format_table(manifest: Manifest) -> str:
    """Format the results as tables in Markdown: the gain over the arm's baseline in the figure that decides, with its
    95 % interval over clips; differences in other figures; figures, mean and deviation over seeds; cost. An arm without
    all seeds has no figures."""
    rows = {arm.name: read_rows(manifest, arm) for arm in manifest.arms}
    whole = [arm for arm in manifest.arms if len(rows[arm.name]) == len(manifest.seeds)]
    verdicts = [["arm", "beside", "decides by", "gain (95 %)", "counts"]]
    for arm in manifest.arms:
        found = rows[arm.name]
        gain = _gain(found, rows[arm.baseline], arm.figure) if arm in whole else (_missing(found, manifest), "")
        beside = "" if arm.baseline == arm.name else arm.baseline
        verdicts.append([arm.name, beside, arm.figure, *gain])
    compared = [arm for arm in whole if arm.baseline != arm.name]
    differences = [[arm.name, arm.baseline, *(_gain(rows[arm.name], rows[arm.baseline], name)[0] for name in COMPARED)]
                   for arm in compared]  # fmt: skip
    groups = {"Phones and features": PHONE_COLUMNS, "Motion, clips with films": MOTION_COLUMNS,
              "Motion against the teacher, sounds without films": UNFILMED_COLUMNS,
              "Liveliness; the last ten seconds of a minute": LIFE_COLUMNS}  # fmt: skip
    parts = ["### Gain in the figure that decides", _markdown(verdicts),
             "### Gain in other figures", _markdown([["arm", "beside", *COMPARED], *differences])]  # fmt: skip
    for title, columns in groups.items():
        shown = [name for name in columns if any(name in row.means for arm in whole for row in rows[arm.name])]
        if shown:
            figures = [[arm.name, *(_spread(rows[arm.name], name) for name in shown)] for arm in whole]
            parts += [f"### {title}", _markdown([["arm", *shown], *figures])]
    parts += ["### Cost", _markdown([list(COST_COLUMNS), *(_cost_cells(arm.name, rows[arm.name]) for arm in whole)])]
    return "\n\n".join(parts) + "\n"


COST_COLUMNS = ("arm", "commit", "steps", "minutes, processor", "teacher passes a step", "shipped", "extra in training",
                "MMAC a frame", "ms a frame, p50 and p95", "latency, ms", "of 400 ms")  # fmt: skip


def _cost_cells(name: str, rows: list[ResultRow]) -> list[str]:
    """Format the cost of an arm, means over its seeds."""
    costs = [row.cost for row in rows]

    def mean(figure: str) -> float:
        return float(np.mean([cost[figure] for cost in costs]))

    passes = float(np.mean([sum(row.cost["teacher passes"].values()) / row.steps for row in rows]))
    minutes = f"{mean('wall-clock s') / 60:.0f}, {mean('processor s') / 60:.0f}"
    return [name, ", ".join(sorted({row.commit for row in rows})), str(rows[0].steps), minutes, f"{passes:.1f}",
            f"{mean('parameters') / 1e6:.2f} M", f"{mean('extra parameters') / 1e6:.2f} M", f"{mean('MMAC'):.1f}",
            f"{mean('ms p50'):.1f}, {mean('ms p95'):.1f}", f"{mean('latency ms'):.0f}",
            f"{100 * mean('of the budget'):.0f} %"]  # fmt: skip


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
